"""How well regions cover things: intersection over union, of masks and of their boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.masks import Mask
from training.proposals.regions import bbox

Overlaps = NDArray[np.float64]
"""(things, regions): the IoU of each pair."""


def mask_ious(things: Sequence[Mask], regions: Sequence[Mask]) -> Overlaps:
    """Masks of one size; two empty ones do not overlap."""
    if not things or not regions:
        return np.zeros((len(things), len(regions)))
    one, other = (np.stack([mask.ravel() for mask in masks]).astype(np.float32) for masks in (things, regions))
    common = (one @ other.T).astype(np.float64)
    either = one.sum(axis=1, dtype=np.float64)[:, None] + other.sum(axis=1, dtype=np.float64)[None, :] - common
    return np.asarray(common / np.maximum(either, 1.0))


def box_ious(things: Sequence[Mask], regions: Sequence[Mask]) -> Overlaps:
    """The same of the boxes around masks; none of them is empty."""
    if not things or not regions:
        return np.zeros((len(things), len(regions)))
    one, other = (np.asarray([bbox(mask) for mask in masks]) for masks in (things, regions))
    start = np.maximum(one[:, None, :2], other[None, :, :2])
    end = np.minimum((one[:, :2] + one[:, 2:])[:, None], (other[:, :2] + other[:, 2:])[None])
    common = np.clip(end - start, 0, None).prod(axis=2)
    either = one[:, 2:].prod(axis=1)[:, None] + other[:, 2:].prod(axis=1)[None, :] - common
    return np.asarray(common / either)


def best_of(overlaps: Overlaps, most: int) -> NDArray[np.float64]:
    """(things,): the best IoU that one of the first `most` regions has with each; 0 where there is none."""
    return np.asarray(overlaps[:, :most].max(axis=1, initial=0.0))
