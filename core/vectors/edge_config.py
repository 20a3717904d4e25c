"""What is told to Qdrant Edge of how to keep and how to search vectors."""

from __future__ import annotations

import qdrant_edge as edge

from core.vectors.storage import VectorStorage

_EF = 256
"""How many neighbours a search of the graph keeps in view. Half as many do for queries that lie among the pictures, but words lie between
them: there, 128 found 84 % of the ten nearest of 140,000, and 200 found 98 % (benchmarks/recall.py asks both ways)."""


def shard_config(dim: int, storage: VectorStorage) -> edge.EdgeConfig:
    vectors = edge.EdgeVectorParams(
        size=dim,
        distance=edge.Distance.Cosine,
        memory=edge.Memory.Cold if storage.on_disk else None,
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


def search_params(storage: VectorStorage) -> edge.SearchParams:
    """By the short form first where there is one, then again by the vectors."""
    if storage.quantization == "off":
        return edge.SearchParams(hnsw_ef=_EF)
    rescored = edge.QuantizationSearchParams(rescore=True, oversampling=storage.oversampling)
    return edge.SearchParams(hnsw_ef=_EF, quantization=rescored)
