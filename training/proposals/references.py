"""What could be had with trained weights, or with people: the upper ends of the table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.schemas import SegmentMode
from model_service import segmenter
from model_service.settings import ModelSettings
from model_service.weights import Checkpoint
from training.proposals.coco import Photo
from training.proposals.regions import Region, stretched


def yolo(checkpoint: Path) -> Callable[[Photo], list[Region]]:
    """A YOLO segmentation checkpoint as the model service runs it. Raises what loading raises."""
    defaults = ModelSettings.model_fields
    loaded = segmenter.load(
        Checkpoint(checkpoint, checkpoint.name, "measured"),
        device="cpu",
        max_segments=defaults["max_segments"].default,
        min_score=defaults["segment_min_score"].default,
    )

    def regions_of(photo: Photo) -> list[Region]:
        (found,) = loaded.segment([photo.pixels], SegmentMode.STANDARD)
        return [Region(stretched(each.mask, photo.pixels), each.score) for each in found]

    return regions_of


def outlines(photo: Photo) -> list[Region]:
    """What people outlined, the largest first."""
    return sorted((Region(thing.mask, thing.share) for thing in photo.things), key=lambda region: -region.score)
