"""What is told to Qdrant Edge of how to keep and how to search vectors."""

from __future__ import annotations

import qdrant_edge as edge

from core.points import has_unlinked
from core.ports import Where
from core.vectors.storage import COMPARED_KB, SEARCH_EF, VectorStorage


def shard_config(dim: int, storage: VectorStorage) -> edge.EdgeConfig:
    vectors = edge.EdgeVectorParams(
        size=dim,
        distance=edge.Distance.Cosine,
        memory=edge.Memory.Cold if storage.on_disk else None,
        hnsw_config=edge.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=COMPARED_KB),
        quantization_config=_quantization(storage),
    )
    return edge.EdgeConfig(vectors=vectors, wal_enabled=True)


def _quantization(storage: VectorStorage) -> edge.ScalarQuantizationConfig | edge.BinaryQuantizationConfig | None:
    """The short form stays in memory: it is what every search reads."""
    match storage.quantization:
        case "scalar":
            return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Cached)
        case "binary":
            return edge.BinaryQuantizationConfig(memory=edge.Memory.Cached)
        case _:
            return None


def search_params(storage: VectorStorage, where: Where) -> edge.SearchParams:
    """By the short form first where there is one, then again by the vectors."""
    acorn = edge.AcornSearchParams(enable=True) if has_unlinked(where) else None
    if storage.quantization == "off":
        return edge.SearchParams(hnsw_ef=SEARCH_EF, acorn=acorn)
    rescored = edge.QuantizationSearchParams(rescore=True, oversampling=storage.oversampling)
    return edge.SearchParams(hnsw_ef=SEARCH_EF, acorn=acorn, quantization=rescored)
