"""Pictures as uploads and thumbnails need them; decoding itself is `core.decoding`'s."""

from __future__ import annotations

from core.decoding import Decoder

_CHECKED_SIDE = 64
"""Enough to read all of the file; a JPEG is then decoded at an eighth of its size."""


class PictureReader:
    """Waits for a process or for the processor: call it in an executor."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def format_of(self, picture: bytes) -> str:
        """Pillow's name of the format of bytes that do decode. Raises ImageRejected, Unavailable."""
        return self._decoder.facts(picture, min_side=_CHECKED_SIDE).format

    def thumbnail(self, picture: bytes, side: int) -> bytes:
        """WEBP, upright, at most `side` pixels a side, never enlarged. Raises ImageRejected, Unavailable."""
        return self._decoder.thumbnail(picture, side)
