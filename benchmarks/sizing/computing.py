"""CPU seconds of a picture, from what `make bench` measured, whose rows keep every core busy; and what pictures and thumbnails take as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from benchmarks import photos
from core.decode import DecodeLimits, thumbnail

_WHOLE = "ingestion, CLIP ViT-B/32 (random weights): over naive"
_WITH_REGIONS = "ingestion, CLIP (random weights) and YOLOv8n-seg: over naive"
_REGIONS_FOUND = 6
"""In a photo, by YOLOv8n-seg (docs/explanation/performance-notes.md)."""
_PHOTOS = 40
_LIMITS = DecodeLimits(2**28, 2**28)


class Computed(NamedTuple):
    """Of one picture."""

    clip_cpu_s: float
    """Of all of ingestion, but regions: of the models, and of noticing, hashing, decoding, writing."""
    segmenter_cpu_s: float
    region_cpu_s: float


class Files(NamedTuple):
    real_photos: bool
    picture_bytes: float
    thumbnail_bytes: float


def computed(performance: Path) -> Computed:
    """Raises KeyError where those rows were not measured."""
    told = json.loads(performance.read_text())
    rows = {row["name"]: row["detail"] for row in told["rows"]}
    cores: int = told["machine"]["cores"]

    def cpu_s(row: str, rate: str) -> float:
        return cores / float(rows[row][rate])

    whole_s, region_s = cpu_s(_WHOLE, "ingested_per_s"), cpu_s(_WHOLE, "models_alone_per_s")
    regions_s = cpu_s(_WITH_REGIONS, "ingested_per_s") - whole_s
    return Computed(whole_s, regions_s - _REGIONS_FOUND * region_s, region_s)


def files(folder: Path) -> Files:
    real = photos.write(folder / "pictures", _PHOTOS)
    contents = [path.read_bytes() for path in (folder / "pictures").iterdir()]
    small = [thumbnail(content, _LIMITS, 256) for content in contents]
    return Files(real, _mean(contents), _mean(small))


def _mean(contents: list[bytes]) -> float:
    return sum(map(len, contents)) / len(contents)
