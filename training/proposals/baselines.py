"""What needs no eyes: regions that any segmenter has to beat."""

from __future__ import annotations

import numpy as np

from core.decode import Pixels
from core.masks import Mask
from training.proposals.regions import Region

_STEPS = {0.6: 3, 0.35: 5}
"""Sides of the grid's boxes as parts of the picture's, and how many stand beside each other: 9 + 25 boxes."""


def whole_image(pixels: Pixels) -> list[Region]:
    return [Region(np.ones(pixels.shape[:2], dtype=np.bool_), 1.0)]


def centre_ellipse(pixels: Pixels) -> list[Region]:
    """The middle 60 % of each side, where photographers put what they mean."""
    return [Region(_ellipse(pixels, (0.2, 0.2, 0.6, 0.6)), 1.0)]


def grid(pixels: Pixels) -> list[Region]:
    """Large boxes that overlap, then small ones, each kind from the centre outwards."""
    boxes: list[tuple[float, float, float, float]] = []
    for share, steps in _STEPS.items():
        places = np.linspace(0, 1 - share, steps)
        row = [(float(x), float(y), share, share) for y in places for x in places]
        boxes += sorted(row, key=lambda box: (box[0] + box[2] / 2 - 0.5) ** 2 + (box[1] + box[3] / 2 - 0.5) ** 2)
    return [Region(_box(pixels, box), 1.0 - n / len(boxes)) for n, box in enumerate(boxes)]


def _box(pixels: Pixels, box: tuple[float, float, float, float]) -> Mask:
    height, width = pixels.shape[:2]
    left, top, across, down = box
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[round(top * height) : round((top + down) * height), round(left * width) : round((left + across) * width)] = True
    return mask


def _ellipse(pixels: Pixels, box: tuple[float, float, float, float]) -> Mask:
    """The ellipse that touches the sides of `box` (left, top, width, height as parts of the picture)."""
    height, width = pixels.shape[:2]
    left, top, across, down = box
    y = ((np.arange(height) + 0.5) / height - top - down / 2) / (down / 2)
    x = ((np.arange(width) + 0.5) / width - left - across / 2) / (across / 2)
    return np.asarray(x[None, :] ** 2 + y[:, None] ** 2 <= 1)
