"""Embeddings as a folder of Parquet files: each whole or not there, the last one knowing where to go on."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from searchsvc.schemas import EmbeddingsPage

if TYPE_CHECKING:
    from pyarrow import Schema, Table


class _Page(Protocol):
    @property
    def cursor(self) -> str | None: ...


_PART = re.compile(r"part-[0-9]+\.parquet")
_CURSOR, _COLLECTION = b"imagesearch.cursor", b"imagesearch.collection"


PageT = TypeVar("PageT", bound=_Page)
PageT_contra = TypeVar("PageT_contra", contravariant=True)


class ForeignPart(Exception):
    """The last part in the folder is damaged, or of something else, or another export is at work; the message says so."""


class Form(Protocol[PageT_contra]):
    """How pages become tables. `name` is of what made them, to be asked for by as they go on; `column` has no other form."""

    @property
    def column(self) -> str: ...

    def name(self, page: PageT_contra) -> str: ...

    def rows(self, page: PageT_contra) -> int: ...

    def schema(self, page: PageT_contra) -> Schema: ...

    def table(self, page: PageT_contra) -> Table: ...


class Parts(Generic[PageT]):
    """Memory holds a page, whatever a part holds. Raises ImportError where pyarrow is not installed."""

    def __init__(self, folder: Path, form: Form[PageT]) -> None:
        if find_spec("pyarrow") is None:
            raise ImportError("Parquet needs pyarrow, which is not installed: pip install '.[parquet]', or make build")
        self._folder, self._form = folder, form
        folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ForeignPart while somebody else writes parts into the folder."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _lock(folder)
            yield
        finally:
            os.close(folder)

    def _files(self) -> list[Path]:
        return sorted((file for file in self._folder.glob("part-*.parquet") if _PART.fullmatch(file.name)), key=_number)

    def left_at(self) -> tuple[str, str] | None:
        """Name and cursor ('' at the end of all) behind the last part; None where there is none. Raises ForeignPart."""
        import pyarrow as pa  # noqa: PLC0415 - an extra
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        if not (there := self._files()):
            return None
        try:
            last = pq.read_metadata(there[-1])
        except pa.ArrowInvalid as error:
            raise ForeignPart(f"{there[-1]}: {error}") from None
        told = last.metadata or {}
        if _CURSOR not in told or self._form.column not in last.schema.to_arrow_schema().names:
            raise ForeignPart(f"{there[-1]} is of another export: name another folder")
        return told[_COLLECTION].decode(), told[_CURSOR].decode()

    def write(self, pages: Iterator[PageT]) -> int:
        """A further part of these pages, which are not none. Returns its rows."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        page = next(pages)
        unfinished, rows = self._folder / ".unfinished", 0
        with pq.ParquetWriter(unfinished, self._form.schema(page)) as writer:
            while True:
                writer.write_table(self._form.table(page))
                rows += self._form.rows(page)
                following = next(pages, None)
                if following is None:
                    break
                page = following
            writer.add_key_value_metadata({_COLLECTION: self._form.name(page), _CURSOR: page.cursor or ""})
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())  # or a power cut could leave the name without its content
        there = self._files()
        unfinished.rename(self._folder / f"part-{_number(there[-1]) + 1 if there else 0:05}.parquet")
        return rows


def _lock(folder: int) -> None:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ForeignPart("another export writes into this folder") from None
    except OSError:  # a file system without locks: whoever has one is to keep exports apart
        pass


def _number(part: Path) -> int:
    return int(part.stem.removeprefix("part-"))


class SingleVectors:
    """A row a vector."""

    column = "vector"

    def name(self, page: EmbeddingsPage) -> str:
        return page.space.collection

    def rows(self, page: EmbeddingsPage) -> int:
        return len(page.embeddings)

    def schema(self, page: EmbeddingsPage) -> Schema:
        return _schema(page.space.dim)

    def table(self, page: EmbeddingsPage) -> Table:
        return _table(page)


def _schema(dim: int) -> Schema:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    text = pa.string()
    fields = {
        "image_id": text,
        "segment": pa.int32(),
        "paths": pa.list_(text),
        "model": text,
        "collection": text,
        "fingerprint": text,
    }
    return pa.schema([*fields.items(), ("vector", pa.list_(pa.float32(), dim))])


def _table(page: EmbeddingsPage) -> Table:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    found, space = page.embeddings, page.space
    numbers = np.concatenate([one.vector for one in found]) if found else np.empty(0, dtype=np.float32)
    columns = [
        pa.array([one.image_id for one in found], pa.string()),
        pa.array([one.segment for one in found], pa.int32()),
        pa.array([list(one.paths) for one in found], pa.list_(pa.string())),
        pa.array([space.model_name] * len(found), pa.string()),
        pa.array([space.collection] * len(found), pa.string()),
        pa.array([one.fingerprint for one in found], pa.string()),
        pa.FixedSizeListArray.from_arrays(pa.array(numbers, pa.float32()), space.dim),
    ]
    return pa.Table.from_arrays(columns, schema=_schema(space.dim))
