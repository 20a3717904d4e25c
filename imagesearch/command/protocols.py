"""Pictures as the escape sequences of those terminals that draw pixels, `columns` by `rows` cells from the cursor on."""

from __future__ import annotations

import base64
import fcntl
import io
import struct
import sys
import termios
from itertools import groupby

import numpy as np
from PIL import Image

_KITTY_CHUNK = 4096
_SIXEL_COLOURS = 64
_SIXEL_BAND = 6
_USUAL_CELL = (10, 20)
"""Width and height of a cell in pixels, where the terminal does not tell."""


def kitty(picture: Image.Image, columns: int, rows: int) -> str:
    """Graphics protocol of kitty (https://sw.kovidgoyal.net/kitty/graphics-protocol/): PNG in chunks; quiet, and the cursor stays."""
    content = base64.b64encode(_png(picture)).decode()
    chunks = [content[start : start + _KITTY_CHUNK] for start in range(0, len(content), _KITTY_CHUNK)]
    first = f"a=T,f=100,c={columns},r={rows},C=1,q=2,"
    return "".join(f"\x1b_G{first if n == 0 else ''}m={int(n < len(chunks) - 1)};{chunk}\x1b\\" for n, chunk in enumerate(chunks))


def iterm2(picture: Image.Image, columns: int, rows: int) -> str:
    """Inline images of iTerm2 (https://iterm2.com/documentation-images.html)."""
    content = _png(picture)
    size = f"size={len(content)};width={columns};height={rows};preserveAspectRatio=1"
    return f"\x1b]1337;File=inline=1;{size}:{base64.b64encode(content).decode()}\x07"


def sixel(picture: Image.Image, columns: int, rows: int) -> str:
    """DEC sixels (VT330/340 programmer reference, chapter 14): bands of six rows, a line of runs for each colour in a band."""
    cell_width, cell_height = _cell_pixels()
    small = picture.resize((columns * cell_width, rows * cell_height), Image.Resampling.LANCZOS).quantize(_SIXEL_COLOURS)
    colours = np.asarray(small)
    palette = np.asarray(small.getpalette(), dtype=np.float64).reshape(-1, 3)
    percent = np.rint(palette * 100 / 255).astype(int)
    registers = "".join(f"#{n};2;{red};{green};{blue}" for n, (red, green, blue) in enumerate(percent))
    bands = "-".join(_sixel_band(colours[top : top + _SIXEL_BAND]) for top in range(0, small.height, _SIXEL_BAND))
    return f'\x1bP0;1q"1;1;{small.width};{small.height}{registers}{bands}\x1b\\'


def _sixel_band(band: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> str:
    """`band`: (at most 6, width) colour numbers."""
    bits = 1 << np.arange(len(band))[:, np.newaxis]
    lines = []
    for colour in np.unique(band):
        columns = ((band == colour) * bits).sum(axis=0) + 63
        runs = ((chr(value), len(list(run))) for value, run in groupby(columns.tolist()))
        lines.append(f"#{colour}" + "".join(f"!{count}{mark}" if count > 3 else mark * count for mark, count in runs))
    return "$".join(lines)


def _cell_pixels() -> tuple[int, int]:
    try:
        answer = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, bytes(8))
    except (OSError, ValueError):
        return _USUAL_CELL
    rows, columns, width, height = struct.unpack("HHHH", answer)
    return (width // columns, height // rows) if rows and columns and width >= columns and height >= rows else _USUAL_CELL


def _png(picture: Image.Image) -> bytes:
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()
