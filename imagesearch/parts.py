"""Embeddings as a folder of Parquet files: each whole or not there, the last one knowing where to go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from searchsvc.schemas import EmbeddingsPage

if TYPE_CHECKING:
    from pyarrow import Schema, Table

_CURSOR, _COLLECTION = b"imagesearch.cursor", b"imagesearch.collection"


class Parts:
    """Memory holds a page, whatever a part holds. Raises ImportError where pyarrow is not installed."""

    def __init__(self, folder: Path) -> None:
        if find_spec("pyarrow") is None:
            raise ImportError("Parquet needs pyarrow, which is not installed: pip install '.[parquet]', or make build")
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("part-*.parquet"))

    def left_at(self) -> tuple[str, str] | None:
        """Collection and cursor ('' at the end of all) behind the last part; None where there is none."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        if not (there := self._files()):
            return None
        told = pq.read_metadata(there[-1]).metadata
        return told[_COLLECTION].decode(), told[_CURSOR].decode()

    def write(self, pages: Iterator[EmbeddingsPage]) -> int:
        """A further part of these pages, which are not none. Returns its rows."""
        import pyarrow.parquet as pq  # noqa: PLC0415 - an extra

        page = next(pages)
        unfinished, rows = self._folder / ".unfinished", 0
        with pq.ParquetWriter(unfinished, _schema(page.space.dim)) as writer:
            while True:
                writer.write_table(_table(page))
                rows += len(page.embeddings)
                following = next(pages, None)
                if following is None:
                    break
                page = following
            writer.add_key_value_metadata({_COLLECTION: page.space.collection, _CURSOR: page.cursor or ""})
        with unfinished.open("rb") as written:
            os.fsync(written.fileno())  # or a power cut could leave the name without its content
        unfinished.rename(self._folder / f"part-{len(self._files()):05}.parquet")
        return rows


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
