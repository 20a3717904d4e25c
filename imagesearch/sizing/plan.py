"""What so many pictures take. Every formula of docs/explanation/sizing.md, which tells them in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

from imagesearch.sizing.costs import Costs
from imagesearch.sizing.vectors import Kept, Quantization, kept

GIB = 2.0**30
DAY_S = 86_400.0

MEMORY_USED = 0.8
"""Of a node's memory; beyond, Qdrant's own guide calls it a sign of a problem."""
DISK_USED = 0.7
"""Of a node's disk: shards that are rebuilt or copied lie there twice for a while."""
CORES_USED = 0.7
"""Of workers, models and database: those that are always busy make a queue that never empties."""

TASKS_IN_BROKER = 1000
"""No more wait there at once, however many pictures do."""
BROKER_BASE_BYTES = 2.0**20
THUMBNAILS_MOST_BYTES = 2.0 * GIB
"""The bound of the cache of one search service (THUMBNAILS_MAX_BYTES)."""

EDGE_MOST_POINTS = 1_000_000
"""As many were measured in Qdrant Edge (docs/explanation/performance-notes.md); its index is built by one process at a time."""
SHARD_MOST_POINTS = 30_000_000
"""Its index is built, and a lost copy is copied, shard by shard."""
SHARDS_A_NODE = 2
LEAST_SHARDS = 6
"""Of a cluster: with six it can grow from 3 nodes to 6 without being sharded anew."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be kept, how safely, and how soon. None: as it was measured."""

    pictures: int
    segments: float = 4.0
    """Of a picture, on average; 0 without a segmenter."""
    dims: tuple[int, ...] = (512,)
    """Numbers of a vector in each space: CLIP has 512, a second space for pictures alone (ResNet-50) 2048."""
    quantization: Quantization = "scalar"
    vectors_on_disk: bool = True
    replicas: int = 2
    node_memory_gib: float = 64.0
    node_disk_gib: float = 2000.0
    picture_bytes: float | None = None
    arrivals_per_s: float = 1.0
    """Of new pictures, day and night, once all are in."""
    backfill_days: float = 30.0
    gpu_pictures_per_s: float | None = None
    """How many pictures one GPU embeds and segments: measure yours, nobody could here. None: the models run on CPUs."""
    ratings: int = 0


@dataclass(frozen=True, slots=True)
class Vectors:
    """Bytes of all copies."""

    points: float
    a_point: tuple[Kept, ...]
    """In each space."""
    disk: float
    memory: float
    nodes: int
    shards: int
    """Of each collection."""

    @property
    def points_in_shard(self) -> float:
        return self.points / len(self.a_point) / self.shards

    @property
    def fits_in_process(self) -> bool:
        """Qdrant Edge, without a server."""
        return self.points <= EDGE_MOST_POINTS


@dataclass(frozen=True, slots=True)
class Ingestion:
    """CPU seconds of one picture, and what follows from them."""

    model_cpu_s: float
    """0 where GPUs do it."""
    worker_cpu_s: float
    database_cpu_s: float
    watcher_cpu_s: float
    backfill_cores: float
    """Busy ones, with `CORES_USED` of each used."""
    backfill_gpus: float
    backfill_node_cores: float
    """Of Qdrant's nodes, to build the index of every copy once."""
    backfill_least_days: float
    """By the one watcher that notices, however much else there is."""
    arrivals_cores: float
    arrivals_gpus: float


@dataclass(frozen=True, slots=True)
class Plan:
    wanted: Wanted
    vectors: Vectors
    ingestion: Ingestion
    pictures_bytes: float
    ledger_sqlite_bytes: float
    ledger_postgres_bytes: float
    wal_bytes_a_day: float
    """Of new pictures."""
    ratings_bytes: float
    """In PostgreSQL."""
    thumbnails_bytes: float
    broker_memory_bytes: float
    broker_commands: float
    """For all pictures, once."""
    broker_bytes: float
    database_statements: float
    database_transactions: float


def planned(wanted: Wanted, costs: Costs) -> Plan:
    """Raises ValueError where a wish makes no sense, OverflowError where it is beyond all numbers."""
    _check(wanted)
    pictures = wanted.pictures
    return Plan(
        wanted=wanted,
        vectors=_vectors(wanted, costs),
        ingestion=_ingestion(wanted, costs),
        pictures_bytes=pictures * (costs.picture_bytes if wanted.picture_bytes is None else wanted.picture_bytes),
        ledger_sqlite_bytes=pictures * costs.ledger_sqlite_bytes,
        ledger_postgres_bytes=pictures * costs.ledger_postgres_bytes,
        wal_bytes_a_day=wanted.arrivals_per_s * DAY_S * costs.wal_postgres_bytes,
        ratings_bytes=wanted.ratings * costs.rating_postgres_bytes,
        thumbnails_bytes=min(THUMBNAILS_MOST_BYTES, pictures * costs.thumbnail_bytes),
        broker_memory_bytes=BROKER_BASE_BYTES + min(pictures, TASKS_IN_BROKER) * costs.task_bytes,
        broker_commands=pictures * costs.broker_commands,
        broker_bytes=pictures * costs.broker_bytes,
        database_statements=pictures * costs.database_statements,
        database_transactions=pictures * costs.database_transactions,
    )


def _check(wanted: Wanted) -> None:
    positive = (
        wanted.pictures,
        wanted.replicas,
        wanted.node_memory_gib,
        wanted.node_disk_gib,
        wanted.backfill_days,
        *wanted.dims,
        1.0 if wanted.gpu_pictures_per_s is None else wanted.gpu_pictures_per_s,
    )
    rest = (wanted.segments, wanted.arrivals_per_s, wanted.ratings, wanted.picture_bytes or 0.0)
    if not all(map(math.isfinite, (*positive, *rest))):
        raise ValueError("what is wanted is told in finite numbers")
    if not wanted.dims or min(positive) <= 0 or min(rest) < 0:
        raise ValueError("pictures, dimensions, replicas, days, rates and the size of a node are above 0, and nothing is below")


def _vectors(wanted: Wanted, costs: Costs) -> Vectors:
    """As many nodes as its memory or its disk wants. The shards decide how long links are, and the nodes how many shards: twice is enough."""
    points = wanted.pictures * (1 + wanted.segments)
    share = wanted.segments / (1 + wanted.segments)
    nodes, shards = wanted.replicas, 1
    for _ in range(2):
        in_shard = points / shards
        a_point = tuple(
            kept(costs, dim, wanted.quantization, points_in_shard=in_shard, regions_share=share) for dim in wanted.dims
        )
        copies = points * wanted.replicas
        disk = copies * sum(one.disk for one in a_point)
        memory = copies * sum(one.memory(vectors_on_disk=wanted.vectors_on_disk) for one in a_point)
        nodes = _nodes(wanted, disk=disk, memory=memory)
        shards = _shards(nodes, points)
    return Vectors(points * len(a_point), a_point, disk, memory, nodes, shards)


def _nodes(wanted: Wanted, *, disk: float, memory: float) -> int:
    """Copies lie on different nodes; two or more nodes agree by majority, so three are the least that may lose one."""
    least = 1 if wanted.replicas == 1 else max(3, wanted.replicas)
    by_memory = memory / (wanted.node_memory_gib * GIB * MEMORY_USED)
    by_disk = disk / (wanted.node_disk_gib * GIB * DISK_USED)
    return max(least, math.ceil(by_memory), math.ceil(by_disk))


def _shards(nodes: int, points: float) -> int:
    """So many that every node has as many as any other."""
    if nodes == 1:
        return max(1, math.ceil(points / SHARD_MOST_POINTS))
    least = max(LEAST_SHARDS, SHARDS_A_NODE * nodes, math.ceil(points / SHARD_MOST_POINTS))
    return math.ceil(least / nodes) * nodes


def _ingestion(wanted: Wanted, costs: Costs) -> Ingestion:
    on_gpu = wanted.gpu_pictures_per_s is not None
    model = 0.0 if on_gpu else models_cpu_s(costs, wanted.segments)
    each = model + costs.worker_cpu_s + costs.database_cpu_s + costs.watcher_cpu_s
    backfill_per_s = wanted.pictures / (wanted.backfill_days * DAY_S)
    vectors = wanted.pictures * (1 + wanted.segments) * wanted.replicas * sum(wanted.dims) / 512
    return Ingestion(
        model_cpu_s=model,
        worker_cpu_s=costs.worker_cpu_s,
        database_cpu_s=costs.database_cpu_s,
        watcher_cpu_s=costs.watcher_cpu_s,
        backfill_cores=cores(backfill_per_s, each),
        backfill_gpus=_gpus(wanted, backfill_per_s),
        backfill_node_cores=vectors * costs.index_cpu_s / (wanted.backfill_days * DAY_S) / CORES_USED,
        backfill_least_days=wanted.pictures * costs.watcher_cpu_s / DAY_S,
        arrivals_cores=cores(wanted.arrivals_per_s, each),
        arrivals_gpus=_gpus(wanted, wanted.arrivals_per_s),
    )


def models_cpu_s(costs: Costs, segments: float) -> float:
    """Of a picture, by CLIP ViT-B/32; with a segmenter unless it is to find none."""
    return costs.clip_cpu_s + (costs.segmenter_cpu_s + segments * costs.region_cpu_s if segments else 0.0)


def cores(per_s: float, cpu_s: float) -> float:
    """That are busy for `CORES_USED` of the time."""
    return per_s * cpu_s / CORES_USED


def _gpus(wanted: Wanted, per_s: float) -> float:
    return 0.0 if wanted.gpu_pictures_per_s is None else per_s / wanted.gpu_pictures_per_s / CORES_USED
