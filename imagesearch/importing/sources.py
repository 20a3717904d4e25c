"""Vectors of pictures as others leave them: Parquet with a vector a row, .npy beside a table of their pictures, or our own complete export."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.schemas import Embedding, GivenEmbeddings, Space, Vector
from imagesearch.backfill.rows import BATCH, Kind, Row, UnreadableSource, bad_row, checked_sha256
from imagesearch.wholes import analysis_of

if TYPE_CHECKING:
    from pyarrow import Schema
    from pyarrow.parquet import ParquetFile

_IDS = ("image_id", "sha256")
_PATHS = ("path", "image_path", "key")
_VECTORS = ("vector", "embedding", "image_embedding")
_LONGEST_PATH = 4096

Told = tuple[Mapping[str, object], Vector | None]
"""What a row says of its picture, and its vector where it has one alone."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How rows are understood: `space` is whose vectors they are, which was `stated` or is to be that of their `collection`."""

    space: Space
    stated: bool
    watched: str | None = None
    vector_column: str | None = None


@dataclass(frozen=True, slots=True)
class VectorBatch:
    """`rows` for the journal; of each that names a picture, what is to be given. `first` counts from 0."""

    first: int
    rows: list[Row]
    given: list[GivenEmbeddings | None]


@dataclass(frozen=True, slots=True)
class VectorFile:
    """`table` says which pictures the rows of a .npy are of."""

    vectors: Path
    table: Path | None = None

    def __len__(self) -> int:
        if self.vectors.suffix == ".npy":
            return len(_numbers(self.vectors))
        with _parquet(self.vectors) as opened:
            return int(opened.metadata.num_rows)

    def rows(self, first: int, reading: Reading) -> Iterator[Told]:
        """From the row `first` on. Raises UnreadableSource."""
        if self.table is None:
            return _of_parquet(self.vectors, first, reading)
        table = _table(self.table, first)
        numbers = _numbers(self.vectors)
        vectors = (np.array(numbers[n], dtype=np.float32) for n in range(first, len(numbers)))
        return _beside(table, vectors, self.vectors)


@dataclass(frozen=True, slots=True)
class Vectors:
    """Files in a fixed order, read a thousand rows at a time."""

    files: tuple[VectorFile, ...]
    reading: Reading

    @property
    def identity(self) -> str:
        """Differs where a row's number would mean another row."""
        told = [(path.resolve(), path.stat()) for file in self.files for path in (file.vectors, file.table) if path is not None]
        return "; ".join(f"{path} of {stat.st_size} bytes, written at {stat.st_mtime_ns}" for path, stat in told)

    @property
    def total(self) -> int:
        return sum(map(len, self.files))

    def batches(self, first: int) -> Iterator[VectorBatch]:
        """From the row `first` on, counted from 0 over all files. Raises UnreadableSource, OSError."""
        passed = 0
        for file in self.files:
            rows = len(file)
            if passed + rows > first:
                within = max(0, first - passed)
                found = file.rows(within, self.reading)
                while told := list(itertools.islice(found, BATCH)):
                    read = [_read(*one, self.reading) for one in told]
                    yield VectorBatch(passed + within, [row for row, _ in read], [given for _, given in read])
                    within += len(told)
            passed += rows


def vector_files(place: Path, table: Path | None) -> tuple[VectorFile, ...]:
    """A file, a folder of Parquet, or a folder as clip-retrieval leaves it (img_emb/*.npy, metadata/*.parquet). Raises UnreadableSource."""
    if place.is_file():
        if place.suffix == ".npy" and table is None:
            raise UnreadableSource(f"{place}: name the table of its pictures by --metadata")
        return (VectorFile(place, table),)
    if numbers := _in_order(place / "img_emb", "*.npy"):
        tables = _in_order(place / "metadata", "*.parquet")
        if len(tables) != len(numbers):
            raise UnreadableSource(f"{place}: {len(numbers)} files of vectors, {len(tables)} of their pictures")
        return tuple(map(VectorFile, numbers, tables))
    if not (files := _in_order(place, "*.parquet")):
        raise UnreadableSource(f"{place}: no .parquet, no .npy, and no folder of them")
    return tuple(map(VectorFile, files))


def _in_order(folder: Path, pattern: str) -> list[Path]:
    return sorted(folder.glob(pattern), key=lambda path: (len(path.name), path.name))


# --- rows ---------------------------------------------------------------------------------------------------------------


def _read(told: Mapping[str, object], vector: Vector | None, reading: Reading) -> tuple[Row, GivenEmbeddings | None]:
    try:
        if "embeddings" in told:
            whole = analysis_of(told)
            return Row(Kind.VECTOR, str(whole.image_id)), whole
        return _given(told, vector, reading)
    except ValueError as error:  # pydantic's own are such, too
        return bad_row(str(error)[:200]), None


def _given(told: Mapping[str, object], vector: Vector | None, reading: Reading) -> tuple[Row, GivenEmbeddings | None]:
    if told.get("segment") is not None:
        return bad_row("of a region: those come with all that was found, see `embeddings export --complete`"), None
    made_by = told.get("collection")
    if made_by not in {None, reading.space.collection} and not reading.stated:
        raise UnreadableSource(f"made by other models ({made_by}); if they are the same, say so by --model")
    if vector is None:
        return bad_row("no vector"), None
    if vector.shape != (reading.space.dim,):
        raise UnreadableSource(f"vectors of {vector.size} numbers; {reading.space.model_name} makes {reading.space.dim}")
    embeddings = (Embedding(collection=reading.space.collection, vector=vector),)
    image_id = next((found for name in _IDS if (found := checked_sha256(told.get(name)))), None)
    if image_id is not None:
        return Row(Kind.VECTOR, image_id), GivenEmbeddings(image_id=image_id, embeddings=embeddings)
    path = next((str(told[name]) for name in _PATHS if told.get(name)), "")
    path = _below(path, reading.watched)
    if not path or len(path) > _LONGEST_PATH:
        return bad_row(f"needs one of {', '.join((*_IDS, *_PATHS))}"), None
    return Row(Kind.VECTOR, path), GivenEmbeddings(path=path, embeddings=embeddings)


def _below(path: str, watched: str | None) -> str:
    """As the service calls it."""
    home = f"{watched.rstrip('/')}/" if watched else ""
    return path[len(home) :] if home and path.startswith(home) else path.removeprefix("./")


def _of_parquet(file: Path, first: int, reading: Reading) -> Iterator[Told]:
    with _parquet(file) as opened:
        names = opened.schema_arrow.names
        whole = "embeddings" in names and reading.vector_column is None
        column = None if whole else _vector_column(opened.schema_arrow, reading.vector_column, file)
        passed, groups = 0, list[int]()
        for group in range(opened.num_row_groups):
            rows = opened.metadata.row_group(group).num_rows
            if not groups and passed + rows <= first:
                passed += rows
            else:
                groups.append(group)
        wanted = None if whole else [name for name in (*_IDS, *_PATHS, "segment", "collection", column) if name in names]
        skip = first - passed
        for batch in opened.iter_batches(20 if whole else BATCH, row_groups=groups, columns=wanted) if groups else ():
            kept = batch.slice(min(skip, len(batch)))
            skip -= min(skip, len(batch))
            vectors = [None] * len(kept) if column is None else [_vector(one) for one in kept.column(column)]
            others = kept if column is None else kept.drop_columns([column])
            yield from zip(others.to_pylist() if others.num_columns else [{}] * len(kept), vectors, strict=True)


def _vector_column(schema: Schema, wanted: str | None, file: Path) -> str:
    import pyarrow as pa  # noqa: PLC0415 - an extra

    for name in (wanted,) if wanted else _VECTORS:
        if name in schema.names:
            kind = schema.field(name).type
            if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
                raise UnreadableSource(f"{file}: the column {name} holds no vectors, but {kind}")
            return name
    raise UnreadableSource(f"{file}: none of the columns {wanted or ', '.join(_VECTORS)}; name it by --vector-column")


def _vector(scalar: Any) -> Vector | None:
    if not scalar.is_valid:
        return None
    return np.asarray(scalar.values.to_numpy(zero_copy_only=False), dtype=np.float32)


@contextmanager
def _parquet(file: Path) -> Iterator[ParquetFile]:
    """Raises UnreadableSource, also of what is read from it."""
    if find_spec("pyarrow") is None:
        raise UnreadableSource("Parquet needs pyarrow, which is not installed: pip install '.[parquet]', or make build")
    import pyarrow as pa  # noqa: PLC0415 - an extra
    from pyarrow.parquet import ParquetFile  # noqa: PLC0415 - as above

    try:
        with ParquetFile(file, pre_buffer=False) as opened:
            yield opened
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise UnreadableSource(f"{file}: {error}") from None


def _numbers(file: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Mapped, not read. Nothing that is no plain array of numbers is opened."""
    try:
        numbers: np.ndarray[Any, np.dtype[Any]] = np.lib.format.open_memmap(file, mode="r")
    except (ValueError, EOFError) as error:
        raise UnreadableSource(f"{file}: {error}") from None
    if numbers.ndim != 2 or numbers.dtype.kind != "f":
        raise UnreadableSource(f"{file}: not a table of floating point numbers")
    return numbers


def _table(file: Path, first: int) -> Iterator[Mapping[str, object]]:
    if file.suffix != ".parquet":
        try:
            with file.open(newline="", encoding="utf-8-sig") as opened:
                yield from itertools.islice(csv.DictReader(opened), first, None)
        except (csv.Error, UnicodeDecodeError) as error:
            raise UnreadableSource(f"{file}: {error}") from None
        return
    with _parquet(file) as opened:
        names = [name for name in (*_IDS, *_PATHS) if name in opened.schema_arrow.names]
        rows = (row for batch in opened.iter_batches(BATCH, columns=names) for row in batch.to_pylist())
        yield from itertools.islice(rows, first, None)


def _beside(table: Iterator[Mapping[str, object]], vectors: Iterator[Vector], file: Path) -> Iterator[Told]:
    """Raises UnreadableSource where there are not as many of both: then nobody knows which is whose."""
    try:
        yield from zip(table, vectors, strict=True)
    except ValueError:
        raise UnreadableSource(f"{file}: not as many vectors as its table has pictures") from None
