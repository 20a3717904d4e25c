"""Safe names for uploaded files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.decode import IMAGE_SUFFIXES
from core.filenames import to_text
from searchsvc import naming
from searchsvc.naming import MAX_NAME_BYTES, file_name, with_mark


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("a.png", "a.png"),
        ("a.PNG", "a.PNG"),
        ("a.jpg", "a.png"),
        ("a", "a.png"),
        ("a.tar.gz", "a.tar.gz.png"),
        ("a.png.part", "a.png.part.png"),
        ("a .png", "a.png"),
        ("..\\..\\boot.png", "boot.png"),
        ("C:\\pictures\\boot.png", "boot.png"),
        ("con.png", "_con.png"),
        ("LPT1", "_LPT1.png"),
        ("new\r\nline.png", "newline.png"),
        ("nul\0byte.png", "nulbyte.png"),
        ("x\u202egnp.exe.png", "xgnp.exe.png"),
        ("~$open.png", "$open.png"),
        ("backup.png~", "backup.png"),
        ("...", "picture.png"),
        (".png", "png.png"),
        ("", "picture.png"),
        (None, "picture.png"),
        ("cafe\u0301.png", "café.png"),
        ("é" * 300 + ".png", "é" * 98 + ".png"),
    ],
)
def test_names_are_plain_and_end_as_the_format_does(name: str | None, stored: str) -> None:
    assert file_name(name, "PNG") == stored


@given(st.text(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP", "HEIF", "TGA"]))
def test_no_name_is_hidden_long_or_leads_anywhere(name: str, image_format: str) -> None:
    for made in (file_name(name, image_format), with_mark(file_name(name, image_format), "0" * 64)):
        assert 0 < len(made.encode()) <= MAX_NAME_BYTES
        assert not made.startswith((".", "~", " "))
        assert not set(made) & set('/\\\0\n\r<>:"|?*')
        assert to_text(made) == made
        assert made[made.rindex(".") :].lower() in IMAGE_SUFFIXES


def test_every_suffix_that_is_given_is_one_that_the_watcher_takes_for_a_picture() -> None:
    given_suffixes = {suffix for suffixes in naming._SUFFIXES.values() for suffix in suffixes}
    assert given_suffixes <= IMAGE_SUFFIXES
