"""What every tower does to a picture before its own preprocessing."""

from __future__ import annotations

from core.decode import Pixels

MAX_ASPECT = 32
"""A tower that scales the short side to 224 would make 900,000 columns of a hairline."""


def bounded_aspect(pixels: Pixels) -> Pixels:
    """The central part whose long side is at most MAX_ASPECT times its short one; nearly always the whole picture."""
    height, width = pixels.shape[:2]
    longest = MAX_ASPECT * min(height, width)
    top, left = max(0, height - longest) // 2, max(0, width - longest) // 2
    return pixels[top : top + longest, left : left + longest]
