"""From a picture and its instances to what the towers embed."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
from PIL import Image

from core.decode import Pixels
from core.errors import InvalidRequest
from core.schemas import BBox
from model_service.parts import Instance

WORKING_SIDE = 1600
"""Longest side of the pixels that are segmented and cropped: enough for an object of 7 % of the width to fill a tower's input."""

_MARGIN = 0.1
_BACKGROUND_SHARE = 0.35
_GREY = 114
_FADED = [int(level * _BACKGROUND_SHARE + _GREY * (1 - _BACKGROUND_SHARE)) for level in range(256)]
"""What each level of a colour becomes outside the mask."""


def working_copy(pixels: Pixels) -> Pixels:
    """The picture, reduced where it is larger than anything downstream looks at."""
    if max(pixels.shape[:2]) <= WORKING_SIDE:
        return pixels
    small = Image.fromarray(pixels)
    small.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    return np.asarray(small)


def part(pixels: Pixels, region: BBox) -> Pixels:
    """What of the picture lies in the box, at least one pixel. Raises InvalidRequest where nothing does."""
    height, width = pixels.shape[:2]
    x, y, w, h = region
    left, top = floor(max(0.0, x)), floor(max(0.0, y))
    right, bottom = ceil(min(width, x + w)), ceil(min(height, y + h))  # cut off first: the sum of two numbers may be infinite
    if left >= right or top >= bottom:
        raise InvalidRequest(f"the region lies outside the picture, which has {width} x {height} pixels", field="region")
    return pixels[top:bottom, left:right]


def crop(pixels: Pixels, instance: Instance) -> Pixels:
    """The instance's box with a margin; what lies outside its mask is faded, so that the embedding is of the thing and not of its place."""
    height, width = pixels.shape[:2]
    x, y, w, h = instance.bbox
    margin = _MARGIN * max(w, h)
    left, top = max(0, int(x - margin)), max(0, int(y - margin))
    right, bottom = min(width, int(np.ceil(x + w + margin))), min(height, int(np.ceil(y + h + margin)))
    box = pixels[top : max(bottom, top + 1), left : max(right, left + 1)]
    inside = _mask_within(instance, (left, top, left + box.shape[1], top + box.shape[0]), (width, height))
    picture = Image.fromarray(np.ascontiguousarray(box))
    return np.asarray(Image.composite(picture, picture.point(3 * _FADED), inside))


def _mask_within(instance: Instance, box: tuple[int, int, int, int], size: tuple[int, int]) -> Image.Image:
    """The part of the instance's mask under `box` (left, top, right, bottom), at the size of the box; of two levels."""
    mask_height, mask_width = instance.mask.shape
    across, down = mask_width / size[0], mask_height / size[1]
    region = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
    return Image.fromarray(instance.mask).resize((box[2] - box[0], box[3] - box[1]), Image.Resampling.NEAREST, box=region)


def scaled(bbox: BBox, pixels: Pixels, *, width: int, height: int) -> BBox:
    """A box of the working pixels in the full picture's."""
    across, down = width / pixels.shape[1], height / pixels.shape[0]
    x, y, w, h = bbox
    return (round(x * across, 2), round(y * down, 2), round(w * across, 2), round(h * down, 2))
