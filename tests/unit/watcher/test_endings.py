"""Which bytes look like a whole picture."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from watcher.endings import looks_complete


def ends(content: bytes) -> bool | None:
    return looks_complete(lambda offset, length: content[offset : offset + length], len(content))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "AVIF"])
def test_a_whole_picture_ends_and_every_cut_of_it_does_not(image_format: str) -> None:
    written = io.BytesIO()
    noise = np.random.default_rng(7).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(written, image_format)
    content = written.getvalue()
    assert ends(content) is True
    for length in range(16, len(content) - 1, max(1, len(content) // 50)):
        assert ends(content[:length]) is False


def test_bytes_behind_the_end_marker_are_forgiven() -> None:
    assert ends(b"\xff\xd8 picture \xff\xd9 trailer of a camera") is True


@pytest.mark.parametrize(("content", "expected"), [(b"", False), (b"II*\x00 a tiff", None), (b"text", None), (b"BM", False)])
def test_what_has_no_telling_end_is_unknown_and_nothing_is_incomplete(content: bytes, expected: bool | None) -> None:
    assert ends(content) is expected
