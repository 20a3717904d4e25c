"""Manifests: tables with a picture a row, as CSV or Parquet, read a thousand rows at a time."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from imagesearch.backfill.rows import BATCH, Batch, Naming, Row, UnreadableSource, bad_row, checked_sha256

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_PLACES = ("path", "url", "key")
_COLUMNS = (*_PLACES, "sha256", "name")


@dataclass(frozen=True, slots=True)
class CsvManifest:
    """With a line of column names; UTF-8. Its cursor is the number of rows that were read."""

    file: Path
    naming: Naming
    total: int | None = None

    @property
    def identity(self) -> str:
        return _identity(self.file)

    def batches(self, cursor: str, *, most: int | None = None) -> Iterator[Batch]:
        read = int(cursor or 0)
        with self.file.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as opened:
            table = csv.DictReader(opened)
            try:
                _check_columns(table.fieldnames or ())
                yield from _batched(itertools.islice(table, read, None), self, read, most)
            except csv.Error as error:
                raise UnreadableSource(f"{self.file}, line {table.line_num}: {error}") from None


@dataclass(frozen=True, slots=True)
class ParquetManifest:
    """Needs pyarrow. Its cursor is as that of CSV; whole row groups before it are passed over."""

    file: Path
    naming: Naming

    @property
    def identity(self) -> str:
        return _identity(self.file)

    @property
    def total(self) -> int | None:
        with self._opened() as opened:
            rows: int = opened.metadata.num_rows
            return rows

    def batches(self, cursor: str, *, most: int | None = None) -> Iterator[Batch]:
        read = int(cursor or 0)
        with self._opened() as opened:
            columns = opened.schema_arrow.names
            _check_columns(columns)
            group, passed = _group_of(opened, read)
            groups = list(range(group, opened.num_row_groups))
            wanted = [name for name in _COLUMNS if name in columns]
            found = (
                row
                for batch in (opened.iter_batches(BATCH, row_groups=groups, columns=wanted) if groups else ())
                for row in batch.to_pylist()
            )
            yield from _batched(itertools.islice(found, read - passed, None), self, read, most)

    @contextmanager
    def _opened(self) -> Iterator[ParquetFile]:
        """Raises UnreadableSource, also of what is read from it."""
        if find_spec("pyarrow") is None:
            raise UnreadableSource("Parquet needs pyarrow, which is not installed: pip install '.[parquet]', or make build")
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - as above

        try:
            with ParquetFile(self.file, pre_buffer=False) as opened:
                yield opened
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            raise UnreadableSource(f"{self.file}: {error}") from None


def _identity(file: Path) -> str:
    status = file.stat()
    return f"{file.resolve()} of {status.st_size} bytes, written at {status.st_mtime_ns}"


def _check_columns(names: Iterable[str]) -> None:
    if not set(names) & set(_PLACES):
        raise UnreadableSource(f"the manifest has none of the columns {', '.join(_PLACES)}")


def _group_of(opened: ParquetFile, row: int) -> tuple[int, int]:
    """The row group that holds this row, and how many rows lie before that."""
    passed = 0
    for group in range(opened.num_row_groups):
        rows = opened.metadata.row_group(group).num_rows
        if passed + rows > row:
            return group, passed
        passed += rows
    return opened.num_row_groups, passed


def _batched(
    found: Iterator[Mapping[str, object]], manifest: CsvManifest | ParquetManifest, read: int, most: int | None
) -> Iterator[Batch]:
    found = itertools.islice(found, most)
    while told := list(itertools.islice(found, BATCH)):
        read += len(told)
        yield Batch([_row(one, manifest.naming, manifest.file.parent) for one in told], str(read))


def _row(told: Mapping[str, object], naming: Naming, home: Path) -> Row:
    """A row names its picture once. A relative path begins at the manifest's folder."""
    given = {column: str(told.get(column) or "").strip() for column in _PLACES}
    places = [column for column in _PLACES if given[column]]
    if len(places) != 1:
        return bad_row(f"needs one of {', '.join(_PLACES)}, has {' and '.join(places) or 'none'}")
    try:
        sha256 = checked_sha256(told.get("sha256"))
    except ValueError as error:
        return bad_row(str(error))
    name, (column,) = str(told.get("name") or "") or None, places
    if column == "key":
        return naming.lying(given["key"].lstrip("/"), sha256=sha256)
    if column == "url":
        return naming.address(given["url"], sha256=sha256, name=name)
    path = Path(given["path"])
    below = PurePosixPath(path.name) if path.is_absolute() else PurePosixPath(path.as_posix())
    return naming.local(path if path.is_absolute() else home / path, below, sha256=sha256, name=name)
