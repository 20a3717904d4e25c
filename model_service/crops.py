"""A segment as a picture of its own: its box with a margin, and what is not the segment faded."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.decode import Pixels
from model_service.parts import Instance

MARGIN = 0.1
"""Of the box's longer side, on each side: a tower trained on whole photos wants some surroundings."""
KEPT_OUTSIDE = 0.35
"""Share of the surroundings' contrast that stays; the rest gives way to the crop's mean colour."""


def crop(pixels: Pixels, instance: Instance) -> Pixels:
    """The instance's crop of the picture that it was found in; at least one pixel a side."""
    height, width = pixels.shape[:2]
    x, y, box_width, box_height = instance.bbox
    margin = MARGIN * max(box_width, box_height)
    left, top = max(0, int(x - margin)), max(0, int(y - margin))
    right, bottom = min(width, int(np.ceil(x + box_width + margin))), min(height, int(np.ceil(y + box_height + margin)))
    left, top = min(left, width - 1), min(top, height - 1)
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    region = pixels[top:bottom, left:right].astype(np.float32)
    weight = _mask_region(instance, (left / width, top / height, right / width, bottom / height), (right - left, bottom - top))
    kept = KEPT_OUTSIDE + (1 - KEPT_OUTSIDE) * weight[..., np.newaxis]
    mean = region.mean(axis=(0, 1))
    return np.asarray(np.rint(mean + (region - mean) * kept), dtype=np.uint8)


def _mask_region(instance: Instance, box: tuple[float, float, float, float], size: tuple[int, int]) -> NDArray[np.float32]:
    """The mask within `box` (shares of the picture) at `size` (width, height), 0..1 with soft edges."""
    height, width = instance.mask.shape
    region = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    mask = Image.fromarray(instance.mask.astype(np.uint8) * 255)
    resized = mask.resize(size, Image.Resampling.BILINEAR, box=region)
    return np.asarray(np.asarray(resized, dtype=np.float32) / np.float32(255), dtype=np.float32)
