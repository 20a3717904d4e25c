"""Pictures as uploads and thumbnails need them; decoding itself is `core.decode`'s."""

from __future__ import annotations

from core import decode
from core.decode import DecodeLimits

_CHECKED_SIDE = 64
"""Enough to read all of the file; a JPEG is then decoded at an eighth of its size."""


class PictureReader:
    """Blocks on the processor: call it in an executor."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def format_of(self, picture: bytes) -> str:
        """Pillow's name of the format of bytes that do decode. Raises ImageRejected."""
        return decode.decode(picture, self._limits, min_side=_CHECKED_SIDE).format

    def thumbnail(self, picture: bytes, side: int) -> bytes:
        """WEBP, upright, at most `side` pixels a side, never enlarged. Raises ImageRejected."""
        return decode.thumbnail(decode.decode(picture, self._limits, min_side=side), side)
