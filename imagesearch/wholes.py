"""All that models found in a picture, as a row of Parquet and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from core.schemas import AnalysedSegment, Embedding, GivenEmbeddings, MaskRle
from searchsvc.schemas import AnalysesPage

if TYPE_CHECKING:
    from pyarrow import Schema, Table


class Wholes:
    """See `imagesearch.parts.Form`."""

    column = "segments"

    def name(self, page: AnalysesPage) -> str:
        return page.fingerprint

    def rows(self, page: AnalysesPage) -> int:
        return len(page.analyses)

    def schema(self, page: AnalysesPage) -> Schema:
        import pyarrow as pa  # noqa: PLC0415 - an extra

        vectors = pa.list_(pa.struct({"collection": pa.string(), "vector": pa.list_(pa.float32())}))
        segment = {
            "n": pa.int32(),
            "label": pa.string(),
            "score": pa.float64(),
            "bbox": pa.list_(pa.float64(), 4),
            "area": pa.float64(),
            "mask_size": pa.list_(pa.int32(), 2),
            "mask_counts": pa.string(),
            "embeddings": vectors,
        }
        fields = {"image_id": pa.string(), "fingerprint": pa.string(), "embeddings": vectors}
        return pa.schema([*fields.items(), ("segments", pa.list_(pa.struct(segment)))])

    def table(self, page: AnalysesPage) -> Table:
        import pyarrow as pa  # noqa: PLC0415 - an extra

        return pa.Table.from_pylist([_row(one) for one in page.analyses], schema=self.schema(page))


def _row(made: GivenEmbeddings) -> dict[str, Any]:
    return {
        "image_id": made.image_id,
        "fingerprint": made.fingerprint,
        "embeddings": _vectors(made.embeddings),
        "segments": [
            {
                "n": one.n,
                "label": one.label,
                "score": one.score,
                "bbox": one.bbox,
                "area": one.area,
                "mask_size": one.mask.size,
                "mask_counts": one.mask.counts,
                "embeddings": _vectors(one.embeddings),
            }
            for one in made.segments
        ],
    }


def _vectors(embeddings: tuple[Embedding, ...]) -> list[dict[str, Any]]:
    return [{"collection": one.collection, "vector": one.vector} for one in embeddings]


def analysis_of(row: Mapping[str, Any]) -> GivenEmbeddings:
    """Raises ValueError."""
    try:
        return GivenEmbeddings(
            image_id=row["image_id"],
            fingerprint=row["fingerprint"],
            embeddings=_embeddings(row["embeddings"]),
            segments=tuple(map(_segment, row["segments"])),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"no row of a complete export: {error}") from None


def _segment(told: Mapping[str, Any]) -> AnalysedSegment:
    return AnalysedSegment(
        n=told["n"],
        label=told["label"],
        score=told["score"],
        bbox=tuple(told["bbox"]),
        area=told["area"],
        mask=MaskRle(size=tuple(told["mask_size"]), counts=told["mask_counts"]),
        embeddings=_embeddings(told["embeddings"]),
    )


def _embeddings(told: list[Mapping[str, Any]]) -> tuple[Embedding, ...]:
    return tuple(Embedding(collection=one["collection"], vector=np.asarray(one["vector"], dtype=np.float32)) for one in told)
