"""What one picture costs, as `python -m benchmarks.sizing` measured it and wrote it into `measured.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Costs:
    """Bytes and seconds are those of one; CPU seconds are of one core of a machine that docs/performance.md names."""

    picture_bytes: float
    thumbnail_bytes: float
    """Of 256 pixels, the size that lists show."""
    regions: float
    """Segments of a photo whose payloads were measured; a plan names its own."""

    payload_image_bytes: float
    payload_region_bytes: float
    """With its mask."""
    filters_image_bytes: float
    filters_region_bytes: float
    """Payload indexes of a point."""
    id_bytes: float
    """A point's id, its place, and its version."""
    resident_bytes: float
    """Of a point, in memory that is no file's: the payload indexes mostly, which are read into it from `filters`."""

    index_cpu_s: float
    """To build the graph (HNSW) over one point of 512 numbers, once, a few ten thousand points in all."""

    ledger_sqlite_bytes: float
    ledger_postgres_bytes: float
    wal_postgres_bytes: float
    """Of one picture's way to indexed, in PostgreSQL's journal: what replicas and archives have to take."""
    rating_sqlite_bytes: float
    rating_postgres_bytes: float

    clip_cpu_s: float
    """Of all of ingestion in `make run`, but regions, by CLIP ViT-B/32: what watcher and worker do is in it, and counted once more there."""
    segmenter_cpu_s: float
    """To find and cut out segments in a picture, by YOLOv8n-seg."""
    region_cpu_s: float
    """To embed a segment: the image tower alone."""

    watcher_cpu_s: float
    """To notice a picture and to send its task."""
    worker_cpu_s: float
    """To drive it to indexed, without the models."""
    database_cpu_s: float
    broker_cpu_s: float

    broker_commands: float
    broker_bytes: float
    """In and out."""
    task_bytes: float
    """Of a task that waits, in Redis' memory."""
    database_statements: float
    database_transactions: float


def measured() -> Costs:
    """What lies beside this module."""
    told = json.loads((files(__package__) / "measured.json").read_text())["costs"]
    return Costs(**{field.name: float(told[field.name]) for field in fields(Costs)})
