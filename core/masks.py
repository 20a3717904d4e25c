"""COCO compressed run-length encoding of masks, by pycocotools (https://github.com/cocodataset/cocoapi)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from core.schemas import MaskRle

Mask = NDArray[np.bool_]

_MOST_PIXELS = 2**26
"""Far beyond what `encode` is given; a size beyond it is a lie that would cost memory, and runs below it fit the C code's integers."""


def encode(mask: Mask) -> MaskRle:
    """Encode a boolean (height, width) mask."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    height, width = rle["size"]
    return MaskRle(size=(int(height), int(width)), counts=rle["counts"].decode("ascii"))


def decode(rle: MaskRle) -> Mask:
    """Decode to a boolean (height, width) mask. Raises ValueError when the runs don't add up to the size."""
    height, width = rle.size
    if height < 1 or width < 1 or height * width > _MOST_PIXELS or not _runs_add_up(rle):
        raise ValueError("the mask's runs don't add up to its size")
    decoded = coco.decode({"size": list(rle.size), "counts": rle.counts.encode("ascii")})
    return np.asarray(decoded, dtype=np.bool_)


def _runs_add_up(rle: MaskRle) -> bool:
    """Read the run lengths as pycocotools' C code does (it trusts them, so a wrong sum would read and write out of bounds)."""
    counts: list[int] = []
    value = shift = 0
    for character in rle.counts:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 30:
            return False
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value |= -1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            return False
        counts.append(value)
        value = shift = 0
    return shift == 0 and sum(counts) == rle.size[0] * rle.size[1]
