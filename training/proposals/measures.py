"""One proposer over all photos: how well its regions cover the things, how long it takes, what search makes of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from model_service.registry import DualEncoder
from training.proposals.coco import Photo
from training.proposals.overlap import best_of, box_ious, mask_ious
from training.proposals.regions import Region
from training.proposals.search import Embedded, embedded

MOSTS = (1, 4, 8, 16, 32)
"""How many regions may be shown."""
SHOWN = 8
"""How many of them are embedded, and judged for what they are."""
SMALL = 0.01
"""Things below this part of the picture are told apart."""
FOUND_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Covered:
    """One photo; rows are things, columns `MOSTS`."""

    shares: NDArray[np.float64]
    masks: NDArray[np.float64]
    boxes: NDArray[np.float64]
    things_shown: NDArray[np.float64]
    """(regions shown,): 1 where the region is one of the photo's things, of any size."""
    regions: int
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Measured:
    name: str
    photos: list[Covered] = field(default_factory=list)
    embeddings: list[Embedded] = field(default_factory=list)


def measure(name: str, regions_of: Callable[[Photo], list[Region]], photos: Iterable[Photo], encoder: DualEncoder) -> Measured:
    """The first photo is looked at twice: what is set up on the way is not counted."""
    measured = Measured(name)
    for photo in photos:
        if not measured.photos:
            regions_of(photo)
        started = time.process_time()
        regions = [region for region in regions_of(photo) if region.mask.any()]
        cpu_s = time.process_time() - started
        things = [thing.mask for thing in photo.things]
        masks = [region.mask for region in regions]
        overlaps = mask_ious(things, masks)
        measured.photos.append(
            Covered(
                shares=np.asarray([thing.share for thing in photo.things]),
                masks=np.stack([best_of(overlaps, most) for most in MOSTS], axis=1),
                boxes=np.stack([best_of(box_ious(things, masks), most) for most in MOSTS], axis=1),
                things_shown=(overlaps[:, :SHOWN].max(axis=0, initial=0.0) >= FOUND_IOU).astype(np.float64),
                regions=len(regions),
                cpu_s=cpu_s,
            )
        )
        measured.embeddings.append(embedded(photo.pixels, regions[:SHOWN], encoder))
    return measured
