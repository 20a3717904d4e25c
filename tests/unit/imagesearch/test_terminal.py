"""What a terminal is believed to draw, and what is drawn for it."""

from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from core.schemas import BBox
from imagesearch.command.screen import shown
from imagesearch.command.terminal import Graphics, graphics_of
from imagesearch.command.thumbnails import draw
from searchsvc.search_schema import MatchView, SegmentView

_SIXEL_ANSWER = b"\x1b[?62;4;22c"
_PLAIN_ANSWER = b"\x1b[?62;22c"
_TRUE_COLOUR = {"COLORTERM": "truecolor"}


@pytest.mark.parametrize(
    ("environment", "answer", "graphics"),
    [
        ({"TERM": "xterm-kitty"}, b"", Graphics.KITTY),
        ({"TERM": "xterm-ghostty"}, b"", Graphics.KITTY),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "iTerm.app"}, b"", Graphics.ITERM2),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "WezTerm"}, b"", Graphics.ITERM2),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, b"", Graphics.ITERM2),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "Apple_Terminal"}, _SIXEL_ANSWER, Graphics.NONE),
        ({"TERM": "foot"}, b"\x1bP>|foot(1.16.2)\x1b\\" + _SIXEL_ANSWER, Graphics.SIXEL),
        ({"TERM": "xterm-256color"}, b"\x1bP>|kitty(0.35.2)\x1b\\" + _PLAIN_ANSWER, Graphics.KITTY),
        ({"TERM": "xterm-256color"}, b"\x1bP>|WezTerm 20240203\x1b\\" + _SIXEL_ANSWER, Graphics.ITERM2),
        ({"TERM": "xterm-256color"}, _PLAIN_ANSWER, Graphics.NONE),
        ({"TERM": "xterm-256color"}, b"", Graphics.NONE),
        ({"TERM": "xterm-256color", **_TRUE_COLOUR}, b"", Graphics.BLOCKS),
        ({"TERM": "xterm-256color", **_TRUE_COLOUR, "NO_COLOR": "1"}, b"", Graphics.NONE),
        ({"TERM": "tmux-256color", "TMUX": "/x", "KITTY_WINDOW_ID": "1", **_TRUE_COLOUR}, _PLAIN_ANSWER, Graphics.BLOCKS),
        ({"TERM": "xterm-kitty", "TMUX": "/x"}, _PLAIN_ANSWER, Graphics.NONE),
        ({"TERM": "screen", "TERM_PROGRAM": "iTerm.app"}, b"", Graphics.NONE),
        ({"TERM": "xterm-256color"}, b"\x1b[?64c", Graphics.NONE),
        ({"TERM": "xterm-256color"}, b"\x1b[?4c", Graphics.NONE),
    ],
)
def test_a_terminal_is_believed_what_its_environment_or_it_itself_says(
    environment: dict[str, str], answer: bytes, graphics: Graphics
) -> None:
    assert graphics_of(environment, ask=lambda: answer) is graphics


@pytest.mark.parametrize("environment", [{"TERM": "dumb", **_TRUE_COLOUR}, {"TERM": "linux"}, {}, {"TERM": "xterm-kitty"}])
def test_a_terminal_that_would_print_the_question_or_need_not_be_asked_is_not(environment: dict[str, str]) -> None:
    def ask() -> bytes:
        raise AssertionError("it was asked")

    graphics_of(environment, ask=ask)


def _thumbnail(size: tuple[int, int] = (256, 128)) -> bytes:
    """Red to the left, blue to the right."""
    picture = Image.new("RGB", size, (255, 0, 0))
    picture.paste((0, 0, 255), (size[0] // 2, 0, *size))
    written = io.BytesIO()
    picture.save(written, "PNG")
    return written.getvalue()


def _match(bbox: BBox | None = None) -> MatchView:
    segment = None if bbox is None else SegmentView(n=0, label="cat", score=0.5, bbox=bbox, area=0.1, mask_url="/m")
    said = {"image_name": "a.jpg", "score": 0.5, "image_id": "0" * 64, "path": "a.jpg", "image_url": "/i", "thumbnail_url": "/t"}
    more = {"width": 1024, "height": 512, "orientation": "landscape", "taken_at": None, "location": None, "jwt": "t"}
    return MatchView.model_validate({**said, **more, "segment": segment}, extra="ignore")


def test_half_blocks_show_the_picture_in_its_colours_beside_the_words() -> None:
    drawn = draw(_thumbnail(), ["1  0.5", "a.jpg"], _match(), Graphics.BLOCKS, width=80)
    rows = drawn.split("\n")
    colours = re.findall(r"38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀", rows[3])
    assert colours[0] == ("255", "0", "0", "255", "0", "0")
    assert colours[-1] == ("0", "0", "255", "0", "0", "255")
    assert len(colours) == 28
    assert rows[0].endswith("\x1b[0m  1  0.5")
    assert rows[1].endswith("\x1b[0m  a.jpg")
    assert len(rows) == 7 + 2


@pytest.mark.parametrize("graphics", [Graphics.BLOCKS, Graphics.KITTY, Graphics.ITERM2, Graphics.SIXEL])
@pytest.mark.parametrize("size", [(256, 1), (1, 256), (1, 1), (256, 256)])
def test_pictures_of_any_shape_stay_within_their_cells_and_their_rows(graphics: Graphics, size: tuple[int, int]) -> None:
    drawn = draw(_thumbnail(size), ["name"], _match(), graphics, width=40)
    text = re.sub(r"\x1b(P.*?\x1b\\|_G.*?\x1b\\|\][^\x07]*\x07|\[[\d;]*[A-Za-z]|[78])", "", drawn, flags=re.DOTALL)
    assert all(len(line) <= 28 + 2 + 4 for line in text.split("\n"))
    assert "name" in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)


def test_words_that_are_longer_than_the_line_are_cut() -> None:
    drawn = draw(_thumbnail(), ["x" * 500], _match(), Graphics.BLOCKS, width=60)
    assert "x" * 30 in drawn
    assert "x" * 31 not in drawn


def test_kittys_chunks_are_short_and_make_the_picture() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 255, (200, 200, 3), dtype=np.uint8))
    written = io.BytesIO()
    noise.save(written, "PNG")
    drawn = draw(written.getvalue(), [], _match(), Graphics.KITTY, width=80)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", drawn)
    assert len(chunks) > 10
    assert all(len(content) <= 4096 for _, content in chunks)
    assert chunks[0][0] == "a=T,f=100,c=12,r=6,C=1,q=2,m=1"
    assert [keys for keys, _ in chunks[1:]] == ["m=1"] * (len(chunks) - 2) + ["m=0"]
    sent = Image.open(io.BytesIO(base64.b64decode("".join(content for _, content in chunks))))
    assert np.array_equal(np.asarray(sent), np.asarray(noise))


def test_iterm2_gets_the_picture_with_its_size() -> None:
    drawn = draw(_thumbnail(), [], _match(), Graphics.ITERM2, width=80)
    found = re.search(r"\x1b\]1337;File=inline=1;size=(\d+);width=22;height=6;preserveAspectRatio=1:([^\x07]*)\x07", drawn)
    assert found is not None
    content = base64.b64decode(found[2])
    assert len(content) == int(found[1])
    assert Image.open(io.BytesIO(content)).size == (256, 128)


def test_sixels_decode_to_the_picture() -> None:
    drawn = draw(_thumbnail(), [], _match(), Graphics.SIXEL, width=80)
    found = re.search(r"\x1bP0;1q(.*?)\x1b\\", drawn)
    assert found is not None
    picture = _decoded_sixels(found[1])
    assert picture.shape == (120, 220, 3)
    assert (picture[:, :100] == (100, 0, 0)).mean() > 0.99
    assert (picture[:, 120:] == (0, 0, 100)).mean() > 0.99


def _decoded_sixels(sixels: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int_]]:
    """Colours in percent; every pixel must have been set, and none below. By DEC's description, not by our encoder."""
    raster = re.match(r'"1;1;(\d+);(\d+)', sixels)
    assert raster is not None
    width, height = int(raster[1]), int(raster[2])
    define = r"#(\d+);2;(\d+);(\d+);(\d+)"
    registers = {int(number): tuple(map(int, rgb)) for number, *rgb in re.findall(define, sixels)}
    picture = np.full((height + 6, width, 3), -1)
    for band_number, band in enumerate(re.sub(define, "", sixels[raster.end() :]).split("-")):
        for line in band.split("$"):
            colour, runs = re.fullmatch(r"#(\d+)([?-~!\d]*)", line).groups()  # type: ignore[union-attr]
            marks = re.sub(r"!(\d+)(.)", lambda run: run[2] * int(run[1]), runs)
            for x, bit in ((x, bit) for x, mark in enumerate(marks) for bit in range(6) if (ord(mark) - 63) >> bit & 1):
                picture[6 * band_number + bit, x] = registers[int(colour)]
    assert (picture[:height] >= 0).all()
    assert (picture[height:] < 0).all()
    return picture[:height]


def test_the_region_that_matched_is_outlined() -> None:
    plain = draw(_thumbnail(), [], _match(), Graphics.ITERM2, width=80)
    outlined = draw(_thumbnail(), [], _match((512, 128, 256, 256)), Graphics.ITERM2, width=80)
    before, after = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(":")[1].split("\x07")[0])))) for text in (plain, outlined)
    )
    rows, columns = np.nonzero((before != after).any(axis=2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (128, 32, 191, 95)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a\x1b[2Jb.jpg", "a�[2Jb.jpg"),
        ("a\nb\tc", "a�b�c"),
        ("gpj.\u202eexe", "gpj.�exe"),
        ("\x9b31m", "�31m"),
        ("ünï 日本.jpg", "ünï 日本.jpg"),
        ("\udcff", "�"),
    ],
)
def test_a_files_name_cannot_steer_the_terminal(name: str, safe: str) -> None:
    assert shown(name) == safe
