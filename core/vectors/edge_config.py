"""What is told to Qdrant Edge of how to keep and how to search vectors."""

from __future__ import annotations

import qdrant_edge as edge

from core.vectors.storage import VectorStorage

_EF = 128
"""How many neighbours a search of the graph keeps in view: recall@10 above 0.97 at 100,000 points of 512 (benchmarks/recall.py)."""


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
