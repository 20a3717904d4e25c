"""What a proposer finds: pixels to regions, best first, without knowing what is to be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image

from core.decode import Pixels
from core.masks import Mask
from core.schemas import BBox


class Region(NamedTuple):
    """A proposed thing: its mask, of the picture's size, and how sure the proposer is (comparable within one picture only)."""

    mask: Mask
    score: float


Proposer = Callable[[Pixels], list[Region]]
"""An upright RGB picture, uint8 (h, w, 3), to its regions, best first."""


def bbox(mask: Mask) -> BBox:
    """The smallest box around a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    return float(left), float(top), float(columns[-1] + 1 - left), float(rows[-1] + 1 - top)


def fitted(pixels: Pixels, side: int) -> Pixels:
    """The picture at a longer side of `side`."""
    scale = side / max(pixels.shape[:2])
    height, width = (max(1, round(length * scale)) for length in pixels.shape[:2])
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0))


def stretched(mask: Mask, like: Pixels) -> Mask:
    """A mask at the size of the picture, its edges interpolated instead of stepped."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize((like.shape[1], like.shape[0]), Image.Resampling.BILINEAR)) > 127


def distinct(regions: list[Region], most: int, same_iou: float) -> list[Region]:
    """The best `most` regions, without those that overlap a better one by more than `same_iou`."""
    kept: list[Region] = []
    flat: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
    for region in sorted(regions, key=lambda region: -region.score):
        pixels = region.mask.ravel().astype(np.float32)
        if all((common := float(pixels @ other)) <= same_iou * (pixels.sum() + other.sum() - common) for other in flat):
            kept.append(region)
            flat.append(pixels)
        if len(kept) == most:
            break
    return kept
