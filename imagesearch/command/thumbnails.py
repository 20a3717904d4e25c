"""A thumbnail beside a few lines of text, in whichever way the terminal draws.

The libraries that do this were looked at: term-image holds Pillow below 11; rich-pixels draws half blocks alone; textual-image asks the
terminal as it is imported, by a sequence that some print, and knows no iTerm2. What is needed of them is small.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from rich.cells import set_cell_size

from imagesearch.command.protocols import iterm2, kitty, sixel
from imagesearch.command.terminal import Graphics
from imagesearch.errors import Unintelligible
from searchsvc.search_schema import MatchView

_CELLS = (22, 6)
"""Columns and rows that a thumbnail may take."""
_BLOCK_CELLS = (28, 8)
"""Half blocks are two pixels a cell: a few more make things recognisable."""
_CELL_ASPECT = 2.0
"""A cell's height over its width."""
_GAP = 2
_LEAST_ROOM = 10

Protocol = Callable[[Image.Image, int, int], str]
_PROTOCOLS: dict[Graphics, Protocol] = {Graphics.KITTY: kitty, Graphics.ITERM2: iterm2, Graphics.SIXEL: sixel}


@dataclass(frozen=True, slots=True)
class _Drawn:
    """A picture in cells: what is written first, and what each row starts with."""

    columns: int
    before: str
    rows: tuple[str, ...]


def draw(thumbnail: bytes, lines: Sequence[str], match: MatchView, graphics: Graphics, *, width: int) -> str:
    """One hit for a terminal of `width` columns: the picture, `lines` to its right, an empty line below. Raises Unintelligible."""
    picture = _decoded(thumbnail)
    _outline_region(picture, match)
    protocol = _PROTOCOLS.get(graphics)
    drawn = _blocks(picture) if protocol is None else _pixels(picture, protocol)
    room = max(_LEAST_ROOM, width - drawn.columns - _GAP)
    beside = [*lines, *[""] * len(drawn.rows)]
    rows = [f"{start}{' ' * _GAP}{set_cell_size(line, room).rstrip()}\n" for start, line in zip(drawn.rows, beside, strict=False)]
    return drawn.before + "".join(rows) + "\n"


def _decoded(thumbnail: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(thumbnail)).convert("RGB")
    except Exception as error:  # decoders fail in any way
        raise Unintelligible("the thumbnail is no picture") from error


def _outline_region(picture: Image.Image, match: MatchView) -> None:
    """The box of the region that matched, in the thumbnail's pixels."""
    if match.segment is None:
        return
    across, down = picture.width / match.width, picture.height / match.height
    x, y, width, height = match.segment.bbox
    left, top = x * across, y * down
    right, bottom = max(left, (x + width) * across - 1), max(top, (y + height) * down - 1)
    ImageDraw.Draw(picture).rectangle((left, top, right, bottom), outline=(255, 64, 64), width=max(2, picture.width // 64))


def _cells(picture: Image.Image, most: tuple[int, int]) -> tuple[int, int]:
    """The most columns and rows within these that keep the picture's shape."""
    scale = min(most[0] / picture.width, most[1] * _CELL_ASPECT / picture.height)
    return max(1, round(picture.width * scale)), max(1, round(picture.height * scale / _CELL_ASPECT))


def _pixels(picture: Image.Image, protocol: Protocol) -> _Drawn:
    """Room is made first, so that a picture at the bottom of the screen scrolls before it is drawn and not while it is."""
    columns, rows = _cells(picture, _CELLS)
    before = "\n" * rows + f"\x1b[{rows}A" + "\x1b7" + protocol(picture, columns, rows) + "\x1b8"
    return _Drawn(columns, before, (f"\x1b[{columns}C",) * rows)


def _blocks(picture: Image.Image) -> _Drawn:
    """Each cell a half block: the upper pixel in the foreground's colour, the lower in the background's."""
    columns, rows = _cells(picture, _BLOCK_CELLS)
    pixels = np.asarray(picture.resize((columns, 2 * rows), Image.Resampling.LANCZOS)).tolist()
    return _Drawn(columns, "", tuple(_block_row(upper, lower) for upper, lower in zip(pixels[::2], pixels[1::2], strict=True)))


def _block_row(upper: Sequence[Sequence[int]], lower: Sequence[Sequence[int]]) -> str:
    cells = (
        f"\x1b[38;2;{red};{green};{blue};48;2;{below_red};{below_green};{below_blue}m▀"
        for (red, green, blue), (below_red, below_green, below_blue) in zip(upper, lower, strict=True)
    )
    return "".join(cells) + "\x1b[0m"
