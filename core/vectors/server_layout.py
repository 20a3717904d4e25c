"""What is told to a Qdrant server when a collection is made, and where one that is there differs from it."""

from __future__ import annotations

from collections.abc import Iterator

from qdrant_client import models

from core.errors import InvalidRequest
from core.points import INDEXES_IN_MEMORY, PAYLOAD_INDEXES, UNLINKED_FIELDS, IndexType, has_unlinked
from core.ports import Where
from core.vectors.storage import COMPARED_KB, SEARCH_EF, ClusterLayout, ReadConsistency, VectorStorage


def vector_params(dim: int, storage: VectorStorage) -> models.VectorParams:
    return models.VectorParams(
        size=dim,
        distance=models.Distance.COSINE,
        on_disk=storage.on_disk or None,
        hnsw_config=models.HnswConfigDiff(full_scan_threshold=COMPARED_KB),
        quantization_config=_quantization(storage),
    )


def search_params(storage: VectorStorage, where: Where) -> models.SearchParams:
    """By the short form first where there is one, then again by the vectors."""
    acorn = models.AcornSearchParams(enable=True) if has_unlinked(where) else None
    rescored = models.QuantizationSearchParams(rescore=True, oversampling=storage.oversampling)
    return models.SearchParams(hnsw_ef=SEARCH_EF, acorn=acorn, quantization=None if storage.quantization == "off" else rescored)


def read_consistency(wish: ReadConsistency | None) -> models.ReadConsistencyType | int | None:
    return models.ReadConsistencyType(wish) if isinstance(wish, str) else wish


def vectors_of(info: models.CollectionInfo) -> models.VectorParams:
    """Raises InvalidRequest for a collection that this product did not make."""
    vectors = info.config.params.vectors
    if not isinstance(vectors, models.VectorParams):
        raise InvalidRequest("The collection was not made by this product: it has named vectors, or none")
    return vectors


def index_params(key: str) -> models.KeywordIndexParams | models.IntegerIndexParams | models.FloatIndexParams:
    """Of the index on a payload field."""
    on_disk, linked = key not in INDEXES_IN_MEMORY, key not in UNLINKED_FIELDS
    keyword, integer = models.KeywordIndexType.KEYWORD, models.IntegerIndexType.INTEGER
    match PAYLOAD_INDEXES[key]:
        case IndexType.KEYWORD:
            return models.KeywordIndexParams(type=keyword, on_disk=on_disk, enable_hnsw=linked)
        case IndexType.SUBSTRING:
            return models.KeywordIndexParams(type=keyword, prefix=True, on_disk=on_disk, enable_hnsw=linked)
        case IndexType.INTEGER:
            return models.IntegerIndexParams(type=integer, lookup=True, range=True, on_disk=on_disk, enable_hnsw=linked)
        case IndexType.FLOAT:
            return models.FloatIndexParams(type=models.FloatIndexType.FLOAT, on_disk=on_disk, enable_hnsw=linked)


def serves(index: models.PayloadIndexInfo | None, wanted: IndexType) -> bool:
    """Whether there is such an index; that of an earlier release may not know of beginnings."""
    if index is None or wanted is not IndexType.SUBSTRING:
        return index is not None
    return isinstance(index.params, models.KeywordIndexParams) and bool(index.params.prefix)


def differences(info: models.CollectionInfo, layout: ClusterLayout, storage: VectorStorage) -> Iterator[str]:
    """What the collection has otherwise than the settings say: they hold for what is made from now on, and it was made before."""
    params, vectors = info.config.params, vectors_of(info)
    pairs: list[tuple[str, object, object]] = [
        ("QDRANT_SHARDS", layout.shards, params.shard_number),
        ("QDRANT_REPLICAS", layout.replicas, params.replication_factor),
        ("QDRANT_WRITE_CONSISTENCY", layout.write_consistency, params.write_consistency_factor),
        ("QDRANT_PAYLOAD_ON_DISK", layout.payload_on_disk, params.on_disk_payload),
        ("VECTORS_ON_DISK", storage.on_disk, bool(vectors.on_disk)),
        ("VECTORS_QUANTIZATION", storage.quantization, _quantization_of(vectors, info)),
    ]
    for setting, wanted, present in pairs:
        if wanted is not None and present is not None and wanted != present:
            yield f"{setting} is {wanted}, the collection has {present}"


def _quantization(storage: VectorStorage) -> models.ScalarQuantization | models.BinaryQuantization | None:
    """The short form stays in memory: it is what every search reads."""
    match storage.quantization:
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
        case _:
            return None


def _quantization_of(vectors: models.VectorParams, info: models.CollectionInfo) -> str:
    """Vectors may have their own; else that of the collection holds."""
    match vectors.quantization_config or info.config.quantization_config:
        case None:
            return "off"
        case models.ScalarQuantization():
            return "scalar"
        case models.BinaryQuantization():
            return "binary"
        case other:
            return type(other).__name__
