"""Whatever the bytes are: an upright RGB picture, or a reason."""

from __future__ import annotations

import io
import json
import resource
import struct
import tarfile
import time
import zlib
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from core.decode import IMAGE_SUFFIXES, DecodedImage, DecodeLimits, decode, sniff, thumbnail
from core.errors import ImageRejected, Reason

LIMITS = DecodeLimits()
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 200, 20), (20, 20, 220), (255, 255, 255)


def _corners() -> Image.Image:
    """Wider than high, and different in each corner, so that no turn leaves it as it was."""
    image = Image.new("RGB", (96, 64), WHITE)
    for box, colour in (((0, 0, 32, 32), RED), ((64, 0, 96, 32), GREEN), ((0, 32, 32, 64), BLUE)):
        image.paste(colour, box)
    return image


def _bytes(image: Image.Image, image_format: str, exif: Image.Exif | None = None) -> bytes:
    written = io.BytesIO()
    if exif is None:
        image.save(written, image_format)
    else:
        image.save(written, image_format, exif=exif)
    return written.getvalue()


def _reason(content: bytes, limits: DecodeLimits = LIMITS) -> Reason:
    with pytest.raises(ImageRejected) as refused:
        decode(content, limits)
    return refused.value.reason


def _mean_error(decoded: DecodedImage, wanted: Image.Image) -> float:
    return float(np.abs(decoded.pixels.astype(int) - np.asarray(wanted.convert("RGB")).astype(int)).mean())


# --- formats and modes


@pytest.mark.parametrize(
    "image_format", ["PNG", "BMP", "TIFF", "PPM", "TGA", "PCX", "SGI", "JPEG", "WEBP", "JPEG2000", "AVIF", "HEIF"]
)
def test_every_format_that_is_read_comes_out_as_it_was(image_format: str) -> None:
    decode(_bytes(_corners(), "PNG"), LIMITS)  # HEIF can be written once it can be read
    decoded = decode(_bytes(_corners(), image_format), LIMITS)
    assert (decoded.width, decoded.height, decoded.pixels.shape, decoded.pixels.dtype) == (96, 64, (64, 96, 3), np.uint8)
    assert decoded.format == image_format
    assert _mean_error(decoded, _corners()) < 6


@pytest.mark.parametrize(
    ("mode", "image_format"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("P", "PNG"),
        ("P", "GIF"),
        ("CMYK", "JPEG"),
        ("CMYK", "TIFF"),
        ("YCbCr", "JPEG"),
        ("LAB", "TIFF"),
    ],
)
def test_every_colour_mode_becomes_rgb(mode: str, image_format: str) -> None:
    if mode == "LAB":
        from PIL import ImageCms

        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(_corners(), srgb, lab, outputMode="LAB")
        assert image is not None
    else:
        image = _corners().convert(mode)
    wanted = _corners().convert(mode).convert("RGB") if mode in {"1", "L", "P", "CMYK"} else _corners()
    assert _mean_error(decode(_bytes(image, image_format), LIMITS), wanted) < 6


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_become_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 4, 8))
    converted = image if mode == "RGBA" else image.convert("LA")
    content = _bytes(image.quantize(8) if mode == "PA" else converted, "PNG")
    pixels = decode(content, LIMITS).pixels
    assert pixels[:, :4].max() <= 8
    assert pixels[:, 4:].min() == 255


def test_deep_grey_levels_keep_their_range() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(1, 256).repeat(4, axis=0)
    assert np.abs(decode(_bytes(Image.fromarray(ramp), "PNG"), LIMITS).pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    unit = np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 256).repeat(4, axis=0)
    assert np.abs(decode(_bytes(Image.fromarray(unit), "TIFF"), LIMITS).pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_counts(image_format: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (RED, BLUE)]
    written = io.BytesIO()
    frames[0].save(written, image_format, save_all=True, append_images=frames[1:])
    assert np.abs(decode(written.getvalue(), LIMITS).pixels.astype(int) - RED).mean() < 4


def test_a_progressive_jpeg_is_a_jpeg() -> None:
    written = io.BytesIO()
    _corners().save(written, "JPEG", progressive=True)
    assert _mean_error(decode(written.getvalue(), LIMITS), _corners()) < 6


# --- EXIF

_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_orientations_give_the_same_upright_picture(orientation: int, image_format: str) -> None:
    """As a camera stores it: turned the other way, with the tag that says how to turn it back."""
    stored = _corners().transpose(_TURNED[orientation]) if orientation in _TURNED else _corners()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode(_bytes(stored, image_format, exif), LIMITS)
    assert (decoded.width, decoded.height) == (96, 64)
    assert _mean_error(decoded, _corners()) < 6


@pytest.mark.parametrize("orientation", [0, 9, 77])
def test_an_orientation_that_does_not_exist_is_none(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert _mean_error(decode(_bytes(_corners(), "JPEG", exif), LIMITS), _corners()) < 6


@pytest.mark.parametrize(
    ("moment", "offset", "taken_at"),
    [
        ("2024:05:06 07:08:09", None, datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024:05:06 07:08:09", "+02:00", datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(timedelta(hours=2)))),
        ("2024:05:06 07:08:09", "-03:30", datetime(2024, 5, 6, 7, 8, 9, tzinfo=timezone(-timedelta(hours=3, minutes=30)))),
        ("2024:05:06 07:08:09", "nonsense", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("2024:05:06 07:08:09", "+99:99", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("0000:00:00 00:00:00", None, None),
        ("    :  :     :  :  ", None, None),
        ("yesterday", "+01:00", None),
    ],
)
def test_when_it_was_taken_comes_from_exif_or_is_unknown(moment: str, offset: str | None, taken_at: datetime | None) -> None:
    exif = Image.Exif()
    ifd = exif.get_ifd(ExifTags.IFD.Exif)
    ifd[ExifTags.Base.DateTimeOriginal] = moment
    if offset:
        ifd[ExifTags.Base.OffsetTimeOriginal] = offset
    assert decode(_bytes(_corners(), "JPEG", exif), LIMITS).taken_at == taken_at


def test_damaged_exif_does_not_cost_the_picture() -> None:
    """An EXIF segment that is cut off in the middle of its directory."""
    segment = b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0"
    jpeg = _bytes(_corners(), "JPEG")
    damaged = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    decoded = decode(damaged, LIMITS)
    assert (decoded.width, decoded.height, decoded.taken_at) == (96, 64, None)


# --- reduction


def test_a_jpeg_may_come_reduced_but_tells_its_full_size() -> None:
    decoded = decode(_bytes(_corners().resize((3000, 2000)), "JPEG"), LIMITS, min_side=300)
    assert (decoded.width, decoded.height) == (3000, 2000)
    assert 300 <= min(decoded.pixels.shape[:2]) < 1000
    assert decoded.pixels.shape[1] / decoded.pixels.shape[0] == pytest.approx(1.5, rel=0.01)


def test_a_small_picture_is_not_reduced() -> None:
    assert decode(_bytes(_corners(), "JPEG"), LIMITS, min_side=500).pixels.shape == (64, 96, 3)


def test_a_reduced_picture_is_upright_too() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    decoded = decode(_bytes(_corners().resize((3000, 2000)).transpose(_TURNED[6]), "JPEG", exif), LIMITS, min_side=300)
    assert (decoded.width, decoded.height) == (3000, 2000)
    assert np.abs(decoded.pixels[5, 5].astype(int) - RED).max() < 25


def test_a_thumbnail_keeps_the_shape_within_its_side() -> None:
    small = Image.open(io.BytesIO(thumbnail(decode(_bytes(_corners().resize((960, 640)), "PNG"), LIMITS), 120)))
    assert (small.format, small.size) == ("WEBP", (120, 80))


# --- rejections


def test_nothing_is_an_empty_file() -> None:
    assert _reason(b"") is Reason.EMPTY_FILE


@pytest.mark.parametrize("content", [b"hello", b"\0" * 500, b"PK\x03\x04 a zip", b"%PDF-1.7", b"\x7fELF", b"<html><body>"])
def test_what_is_no_picture_is_told(content: bytes) -> None:
    assert _reason(content) is Reason.NOT_AN_IMAGE


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"<svg xmlns='x'/>",
        b"<?xml version='1.0'?><svg/>",
        b"GRIB" + b"\0" * 60,
    ],
)
def test_pictures_in_formats_that_are_not_read_are_told_from_no_pictures(content: bytes) -> None:
    assert _reason(content) is Reason.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "BMP", "TGA"])
def test_a_file_that_ends_too_early_is_truncated(image_format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    content = _bytes(noise, image_format)
    assert _reason(content[: len(content) // 2]) is Reason.TRUNCATED


def test_a_damaged_middle_is_corrupt() -> None:
    content = bytearray(_bytes(_corners(), "PNG"))
    content[60:70] = bytes(10)
    assert _reason(bytes(content)) in {Reason.CORRUPT, Reason.TRUNCATED}


def test_limits_hold_at_their_edge() -> None:
    content = _bytes(_corners(), "PNG")
    decode(content, DecodeLimits(max_bytes=len(content), max_pixels=96 * 64))
    assert _reason(content, DecodeLimits(max_bytes=len(content) - 1)) is Reason.TOO_MANY_BYTES
    assert _reason(content, DecodeLimits(max_pixels=96 * 64 - 1)) is Reason.TOO_MANY_PIXELS


def test_a_decompression_bomb_is_refused_by_its_header() -> None:
    """40,000 x 40,000 grey pixels in 1.6 MB of PNG: decoding it would take 1.6 GB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    squeezed = zlib.compressobj(9)
    rows = b"".join(squeezed.compress(bytes(40_001)) for _ in range(2_000)) + squeezed.flush()
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert _reason(bomb) is Reason.TOO_MANY_PIXELS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP"]), st.data())
def test_no_damage_raises_anything_but_a_rejection(image_format: str, draw: st.DataObject) -> None:
    content = bytearray(_bytes(_corners(), image_format))
    for _ in range(draw.draw(st.integers(1, 8))):
        content[draw.draw(st.integers(0, len(content) - 1))] = draw.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(content), DecodeLimits(max_pixels=4_000_000))
    except ImageRejected:
        return
    assert decoded.pixels.ndim == 3


# --- names and first bytes


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000"])
def test_a_picture_is_known_by_its_first_bytes(image_format: str) -> None:
    decode(_bytes(_corners(), "PNG"), LIMITS)  # as above
    assert sniff(_bytes(_corners(), image_format)[:32])


@pytest.mark.parametrize(
    "head", [b"", b"hello", b"%PDF-1.7", b"PK\x03\x04", b"#!/bin/sh", b"RIFF1234WAVE", b"\0\0\0\x18ftypmp42"]
)
def test_other_files_are_not_taken_for_pictures(head: bytes) -> None:
    assert not sniff(head)


def test_suffixes_are_lower_case_with_their_dot_and_hold_the_common_ones() -> None:
    assert {".jpg", ".jpeg", ".png", ".heic", ".avif", ".webp", ".tif", ".psd", ".eps", ".cr2", ".svg"} <= IMAGE_SUFFIXES
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)


# --- the difficult files

DECODES = (
    "avif_ok",
    "exif_orientation_example",
    "exif_orientation_2_8",
    "cmyk",
    "alpha",
    "lab",
    "16bit_or_32bit_int",
    "progressive_jpeg",
)


@pytest.fixture(scope="module")
def nasty(shared: Path) -> dict[str, tuple[set[str], bytes]]:
    """Each file with its categories."""
    categories = json.loads((shared / "data" / "nasty" / "index.json").read_text())
    with tarfile.open(shared / "data" / "nasty" / "files.tar") as tar:
        files = {member.name.removeprefix("./"): tar.extractfile(member) for member in tar if member.isfile()}
        return {name: (set(categories[name]), file.read()) for name, file in files.items() if file and name in categories}


@pytest.mark.shared
def test_each_difficult_file_decodes_or_is_refused_for_a_fitting_reason(nasty: dict[str, tuple[set[str], bytes]]) -> None:
    assert len(nasty) == 218
    outcomes: dict[str, str] = {}
    slow: dict[str, float] = {}
    for name, (_, content) in nasty.items():
        started = time.perf_counter()
        try:
            decode(content, LIMITS, min_side=224)
            outcomes[name] = "decoded"
        except ImageRejected as error:
            outcomes[name] = error.reason.value
        if (elapsed := time.perf_counter() - started) > 10:
            slow[name] = elapsed
    refused = {"truncated", "corrupt", "not_an_image", "unsupported_format", "too_many_pixels", "empty_file"}
    wrong = {name: outcome for name, outcome in outcomes.items() if outcome not in _fitting(nasty[name][0], refused)}
    assert wrong == {}
    assert slow == {}


def _fitting(categories: set[str], refused: set[str]) -> set[str]:
    if "empty_file" in categories:
        return {"empty_file"}
    if categories & set(DECODES) or any(each.startswith("multi_frame") and "FLI" not in each for each in categories):
        return {"decoded"}
    if "opens_but_load_fails_EPS" in categories or "multi_frame_FLI" in categories:
        return {"unsupported_format"}
    if "decompression_bomb" in categories or any("load_fails" in each for each in categories):
        return refused - {"empty_file"}
    return {"decoded"} | refused
