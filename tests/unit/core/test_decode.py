"""Bytes of every kind become an upright RGB picture or an ImageRejected with its reason, and nothing else."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import time
import tracemalloc
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, features

from core.decode import IMAGE_SUFFIXES, DecodedImage, DecodeLimits, decode, sniff, thumbnail
from core.errors import ImageRejected, Reason

LIMITS = DecodeLimits()
WIDTH, HEIGHT = 60, 40
RED, BLUE = (220, 30, 30), (30, 30, 220)
BROKEN = {Reason.TRUNCATED, Reason.CORRUPT}


def _scene() -> Image.Image:
    """Red on the left, blue on the right, so that a turn or a swap of channels shows."""
    scene = Image.new("RGB", (WIDTH, HEIGHT), RED)
    scene.paste(BLUE, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return scene


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, image_format, **options)
    return written.getvalue()


def _heic(image: Image.Image, **options: Any) -> bytes:
    written = io.BytesIO()
    pillow_heif.from_pillow(image).save(written, **options)
    return written.getvalue()


def _translucent() -> Image.Image:
    """Opaque red at the left, wholly transparent black at the right."""
    image = Image.new("RGBA", (WIDTH, HEIGHT), (0, 0, 0, 0))
    image.paste((*RED, 255), (0, 0, WIDTH // 2, HEIGHT))
    return image


def _rejection(image: bytes, limits: DecodeLimits = LIMITS) -> Reason:
    with pytest.raises(ImageRejected) as rejected:
        decode(image, limits)
    return rejected.value.reason


def _outcome(image: bytes, limits: DecodeLimits) -> Reason | None:
    """None for a picture, else why it is none."""
    try:
        decode(image, limits, min_side=640)
    except ImageRejected as rejected:
        return rejected.reason
    return None


def _left_and_right(decoded: DecodedImage) -> tuple[tuple[int, ...], tuple[int, ...]]:
    row = decoded.pixels[decoded.pixels.shape[0] // 2]
    return tuple(map(int, row[len(row) // 6])), tuple(map(int, row[-len(row) // 6]))


def _assert_near(seen: tuple[int, ...], wanted: tuple[int, ...], tolerance: int = 24) -> None:
    assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) <= tolerance, (seen, wanted)


# --- formats and modes -----------------------------------------------------------------------------------------------

FORMATS: dict[str, tuple[Callable[[], bytes], str]] = {
    "jpeg": (lambda: _encoded(_scene(), "JPEG", quality=95), "JPEG"),
    "progressive jpeg": (lambda: _encoded(_scene(), "JPEG", quality=95, progressive=True), "JPEG"),
    "mpo": (lambda: _encoded(_scene(), "MPO", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), "MPO"),
    "png": (lambda: _encoded(_scene(), "PNG"), "PNG"),
    "apng": (lambda: _encoded(_scene(), "PNG", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), "PNG"),
    "gif": (lambda: _encoded(_scene(), "GIF"), "GIF"),
    "animated gif": (lambda: _encoded(_scene(), "GIF", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]), "GIF"),
    "webp": (lambda: _encoded(_scene(), "WEBP", lossless=True), "WEBP"),
    "animated webp": (
        lambda: _encoded(_scene(), "WEBP", lossless=True, save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]),
        "WEBP",
    ),
    "bmp": (lambda: _encoded(_scene(), "BMP"), "BMP"),
    "tiff": (lambda: _encoded(_scene(), "TIFF"), "TIFF"),
    "big tiff": (lambda: _encoded(_scene(), "TIFF", big_tiff=True), "TIFF"),
    "tiff of lzw": (lambda: _encoded(_scene(), "TIFF", compression="tiff_lzw"), "TIFF"),
    "avif": (lambda: _encoded(_scene(), "AVIF", quality=95), "AVIF"),
    "heic": (lambda: _heic(_scene(), quality=95), "HEIF"),
    "jpeg 2000": (lambda: _encoded(_scene(), "JPEG2000"), "JPEG2000"),
    "ppm": (lambda: _encoded(_scene(), "PPM"), "PPM"),
    "tga": (lambda: _encoded(_scene(), "TGA"), "TGA"),
    "pcx": (lambda: _encoded(_scene(), "PCX"), "PCX"),
    "sgi": (lambda: _encoded(_scene(), "SGI"), "SGI"),
}
UNSIGNED = {"ppm", "tga", "pcx", "sgi"}
"""Formats with no signature worth the name: they are known by their suffix."""


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_becomes_rgb_and_an_animation_its_first_frame(name: str) -> None:
    make, image_format = FORMATS[name]
    decoded = decode(make(), LIMITS)
    assert decoded.facts.format == image_format
    assert (decoded.facts.width, decoded.facts.height) == (WIDTH, HEIGHT)
    assert decoded.pixels.shape == (HEIGHT, WIDTH, 3)
    assert decoded.pixels.dtype == np.uint8
    left, right = _left_and_right(decoded)
    _assert_near(left, RED)
    _assert_near(right, BLUE)


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - UNSIGNED))
def test_the_first_bytes_of_a_picture_are_enough_to_know_it(name: str) -> None:
    assert sniff(FORMATS[name][0]()[:32])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"Dear diary, today",
        b"PK\x03\x04\x14\0\0\0",
        b"%PDF-1.7\n",
        b"\0\0\0\x20ftypisom\0\0\x02\0",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"BMW cars",
    ],
)
def test_other_files_are_not_taken_for_pictures(head: bytes) -> None:
    assert not sniff(head.ljust(32, b"."))


def test_the_suffixes_are_lower_case_and_hold_those_of_all_formats_read() -> None:
    assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in IMAGE_SUFFIXES)
    assert {".jpg", ".png", ".heic", ".avif", ".svg", ".cr2"} <= IMAGE_SUFFIXES
    assert not {".txt", ".pdf", ".mp4", ".zip", ""} & IMAGE_SUFFIXES


MODES: dict[str, tuple[Callable[[], bytes], tuple[int, int, int], tuple[int, int, int]]] = {
    "RGBA": (lambda: _encoded(_translucent(), "PNG"), RED, (255, 255, 255)),
    "RGBA webp": (lambda: _encoded(_translucent(), "WEBP", lossless=True), RED, (255, 255, 255)),
    "LA": (lambda: _encoded(_translucent().convert("LA"), "PNG"), (86, 86, 86), (255, 255, 255)),
    "P, transparent": (lambda: _encoded(_transparent_palette(), "PNG", transparency=1), RED, (255, 255, 255)),
    "P, transparent gif": (lambda: _encoded(_transparent_palette(), "GIF", transparency=1), RED, (255, 255, 255)),
    "P": (lambda: _encoded(_transparent_palette(), "PNG"), RED, BLUE),
    "RGB with a transparent colour": (lambda: _encoded(_scene(), "PNG", transparency=BLUE), RED, (255, 255, 255)),
    "1": (lambda: _encoded(_steps("1", 0, 255), "PNG"), (0, 0, 0), (255, 255, 255)),
    "L": (lambda: _encoded(_steps("L", 60, 200), "PNG"), (60, 60, 60), (200, 200, 200)),
    "CMYK": (lambda: _encoded(_scene().convert("CMYK"), "JPEG", quality=95), RED, BLUE),
    "CMYK tiff": (lambda: _encoded(_scene().convert("CMYK"), "TIFF"), RED, BLUE),
    "YCbCr": (lambda: _encoded(_scene().convert("YCbCr"), "TIFF"), RED, BLUE),
    "LAB": (lambda: _encoded(_lab(), "TIFF"), RED, BLUE),
    "I;16": (lambda: _encoded(_deep(np.uint16, 10_000, 60_000), "PNG"), (39, 39, 39), (233, 233, 233)),
    "I;16 tiff": (lambda: _encoded(_deep(np.uint16, 10_000, 60_000), "TIFF"), (39, 39, 39), (233, 233, 233)),
    "I tiff": (lambda: _encoded(_deep(np.int32, -70_000, 70_000), "TIFF"), (0, 0, 0), (255, 255, 255)),
    "F from 0 to 1": (lambda: _encoded(_deep(np.float32, 0.2, 0.8), "TIFF"), (51, 51, 51), (204, 204, 204)),
    "F beyond 1": (lambda: _encoded(_deep(np.float32, 60, 200), "TIFF"), (60, 60, 60), (200, 200, 200)),
    "I of one level": (lambda: _encoded(_deep(np.int32, -5, -5), "TIFF"), (0, 0, 0), (0, 0, 0)),
    "F without end": (lambda: _encoded(_deep(np.float32, -np.inf, np.inf), "TIFF"), (0, 0, 0), (0, 0, 0)),
    "F with an end": (lambda: _encoded(_deep(np.float32, np.inf, 0.8), "TIFF"), (204, 204, 204), (204, 204, 204)),
    "F without numbers": (lambda: _encoded(_deep(np.float32, np.nan, 0.8), "TIFF"), (0, 0, 0), (204, 204, 204)),
}


def _transparent_palette() -> Image.Image:
    image = Image.new("P", (WIDTH, HEIGHT), 0)
    image.putpalette([*RED, *BLUE])
    image.paste(1, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def _steps(mode: str, left: int, right: int) -> Image.Image:
    image = Image.new(mode, (WIDTH, HEIGHT), left)
    image.paste(right, (WIDTH // 2, 0, WIDTH, HEIGHT))
    return image


def _deep(kind: type[np.generic], left: float, right: float) -> Image.Image:
    levels = np.full((HEIGHT, WIDTH), left, kind)
    levels[:, WIDTH // 2 :] = right
    return Image.fromarray(levels)


def _lab() -> Image.Image:
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(_scene(), srgb, lab, outputMode="LAB")
    assert converted is not None
    return converted


@pytest.mark.parametrize("name", MODES)
def test_every_mode_is_flattened_to_rgb_on_white(name: str) -> None:
    make, left, right = MODES[name]
    decoded = decode(make(), LIMITS)
    assert decoded.pixels.shape == (HEIGHT, WIDTH, 3)
    seen_left, seen_right = _left_and_right(decoded)
    _assert_near(seen_left, left)
    _assert_near(seen_right, right)


def test_a_picture_of_one_pixel_and_one_of_one_row_are_pictures() -> None:
    for size in ((1, 1), (5000, 1), (1, 5000)):
        decoded = decode(_encoded(Image.new("RGB", size), "JPEG"), LIMITS, min_side=224)
        assert (decoded.facts.width, decoded.facts.height) == size


def test_a_picture_of_many_bands_is_flattened_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RGBA", "P, transparent", "I;16", "I tiff", "F beyond 1", "F without numbers"):
        whole = decode(MODES[name][0](), LIMITS).pixels
        with monkeypatch.context() as patched:
            patched.setattr("core.decode._BAND_PIXELS", 7 * WIDTH)
            assert np.array_equal(decode(MODES[name][0](), LIMITS).pixels, whole), name


# --- EXIF --------------------------------------------------------------------------------------------------------------

UNDONE_BY = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # what a camera held so has stored: the opposite of what undoes it
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def _oriented(orientation: int, size: tuple[int, int], image_format: str = "JPEG") -> bytes:
    """A picture whose upright form is red at the top left, green at the top right, blue below, stored under an orientation."""
    width, height = size
    upright = Image.new("RGB", size, BLUE)
    upright.paste(RED, (0, 0, width // 2, height // 2))
    upright.paste((30, 200, 30), (width // 2, 0, width, height // 2))
    turn = UNDONE_BY[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return _encoded(upright if turn is None else upright.transpose(turn), image_format, exif=exif)


@pytest.mark.parametrize("orientation", UNDONE_BY)
@pytest.mark.parametrize("min_side", [None, 100])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_all_orientations_give_the_same_upright_picture(orientation: int, min_side: int | None, image_format: str) -> None:
    decoded = decode(_oriented(orientation, (1200, 800), image_format), LIMITS, min_side=min_side)
    assert (decoded.facts.width, decoded.facts.height) == (1200, 800)
    height, width = decoded.pixels.shape[:2]
    assert width == pytest.approx(height * 1.5, abs=2)
    _assert_near(tuple(map(int, decoded.pixels[height // 4, width // 4])), RED)
    _assert_near(tuple(map(int, decoded.pixels[height // 4, width * 3 // 4])), (30, 200, 30))
    _assert_near(tuple(map(int, decoded.pixels[height * 3 // 4, width // 4])), BLUE)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    decoded = decode(_encoded(_scene(), "JPEG", exif=exif), LIMITS)
    assert (decoded.facts.width, decoded.facts.height) == (WIDTH, HEIGHT)
    _assert_near(_left_and_right(decoded)[0], RED)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xfe" * 40]
)
@pytest.mark.filterwarnings("ignore")  # an error here would pass for a decoder's
def test_nonsense_in_the_exif_does_not_cost_the_picture(exif: bytes) -> None:
    decoded = decode(_encoded(_scene(), "JPEG", exif=exif), LIMITS)
    assert decoded.facts.taken_at is None
    assert (decoded.facts.width, decoded.facts.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize(
    "moment", ["", "0000:00:00 00:00:00", "    :  :     :  :  ", "2024-05-06 07:08:09", "2024:13:01 00:00:00", "x" * 5000]
)
def test_a_date_that_is_none_is_absent(moment: str) -> None:
    assert decode(_taken(moment, None), LIMITS).facts.taken_at is None


@pytest.mark.parametrize(
    ("offset", "zone"),
    [
        (None, UTC),
        ("", UTC),
        ("+02:00", timezone(timedelta(hours=2))),
        ("-03:30", timezone(-timedelta(hours=3, minutes=30))),
        ("+99:00", UTC),
        ("nonsense", UTC),
    ],
)
def test_the_moment_is_read_with_its_offset(offset: str | None, zone: timezone) -> None:
    taken_at = decode(_taken("2024:05:06 07:08:09", offset), LIMITS).facts.taken_at
    assert taken_at == datetime(2024, 5, 6, 7, 8, 9, tzinfo=zone)
    assert taken_at.utcoffset() == zone.utcoffset(None)


def _taken(moment: str, offset: str | None) -> bytes:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = moment
    if offset is not None:
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.OffsetTimeOriginal] = offset
    return _encoded(_scene(), "JPEG", exif=exif)


# --- reduction ---------------------------------------------------------------------------------------------------------


@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(1, 900))
@settings(max_examples=40, deadline=None)
@example(1000, 751, 750)
@example(4000, 3000, 1)
def test_a_reduced_jpeg_keeps_its_short_side(width: int, height: int, min_side: int) -> None:
    decoded = decode(_encoded(Image.new("L", (width, height)), "JPEG"), LIMITS, min_side=min_side)
    assert (decoded.facts.width, decoded.facts.height) == (width, height)
    assert min(decoded.pixels.shape[:2]) >= min(min_side, width, height)


def test_a_large_jpeg_is_reduced_and_without_a_wish_it_is_not() -> None:
    image = _encoded(Image.new("RGB", (3200, 2400)), "JPEG")
    assert decode(image, LIMITS, min_side=300).pixels.shape == (300, 400, 3)
    assert decode(image, LIMITS).pixels.shape == (2400, 3200, 3)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300))
@settings(max_examples=25, deadline=None)
def test_a_thumbnail_stays_within_its_bound(width: int, height: int, max_side: int) -> None:
    small = Image.open(io.BytesIO(thumbnail(_encoded(Image.new("RGB", (width, height)), "PNG"), LIMITS, max_side)))
    assert small.format == "WEBP"
    assert max(small.size) <= max_side
    assert max(small.size) == min(max_side, max(width, height))


# --- limits ------------------------------------------------------------------------------------------------------------


def test_the_byte_limit_is_the_last_size_that_passes() -> None:
    image = _encoded(_scene(), "PNG")
    assert decode(image, DecodeLimits(max_bytes=len(image))).facts.width == WIDTH
    assert _rejection(image, DecodeLimits(max_bytes=len(image) - 1)) is Reason.TOO_MANY_BYTES


def test_the_pixel_limit_is_the_last_size_that_passes() -> None:
    image = _encoded(_scene(), "PNG")
    assert decode(image, DecodeLimits(max_pixels=WIDTH * HEIGHT)).facts.width == WIDTH
    assert _rejection(image, DecodeLimits(max_pixels=WIDTH * HEIGHT - 1)) is Reason.TOO_MANY_PIXELS


def _png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


BOMBS = {
    "png": lambda: _png_header(60_000, 60_000),
    "gif": lambda: b"GIF89a\xff\xff\xff\xff\0\0\0" + b",\0\0\0\0\xff\xff\xff\xff\0" + b"\x08\x01\0\0;",
    "bmp": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    ),
    "ppm": lambda: b"P6 60000 60000 255\n" + bytes(100),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_by_its_header_alone(name: str) -> None:
    bomb = BOMBS[name]()
    decode(_encoded(_scene(), "PNG"), LIMITS)
    tracemalloc.start()
    started = time.perf_counter()
    reason = _rejection(bomb)
    took, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason is Reason.TOO_MANY_PIXELS
    assert peak < 2 * 2**20
    assert took < 1


# --- what is no picture, or one no more -----------------------------------------------------------------------------------

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", Reason.EMPTY_FILE),
        (b"\0", Reason.NOT_AN_IMAGE),
        (b"a letter\n" * 40, Reason.NOT_AN_IMAGE),
        (b"%PDF-1.7\n" + bytes(100), Reason.NOT_AN_IMAGE),
        (b"PK\x03\x04" + bytes(100), Reason.NOT_AN_IMAGE),
        (SVG, Reason.UNSUPPORTED_FORMAT),
        (SVG.partition(b"?>")[2], Reason.UNSUPPORTED_FORMAT),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", Reason.UNSUPPORTED_FORMAT),
        (b"DDS " + bytes(200), Reason.UNSUPPORTED_FORMAT),
        (b"\x89PNG\r\n\x1a\n", Reason.CORRUPT),
        (b"\xff\xd8\xff", Reason.CORRUPT),
    ],
)
def test_what_is_not_a_picture_is_refused_for_its_own_reason(image: bytes, reason: Reason) -> None:
    assert _rejection(image) is reason


def _noisy(image_format: str, **options: Any) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (90, 120, 3), np.uint8)
    return _encoded(Image.fromarray(noise), image_format, **options)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_a_picture_cut_anywhere_is_told_as_broken(image_format: str) -> None:
    image = _noisy(image_format)
    signed = 8
    for end in [*range(signed, 700, 7), *range(700, len(image) - 16, len(image) // 60)]:
        assert _rejection(image[:end]) in BROKEN, end
    assert _rejection(image[: len(image) // 2]) is Reason.TRUNCATED


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - UNSIGNED))
def test_half_a_file_of_any_format_is_decoded_or_told_as_broken(name: str) -> None:
    image = FORMATS[name][0]()
    for tenths in range(1, 10):
        assert _outcome(image[: len(image) * tenths // 10], LIMITS) in {None, *BROKEN, Reason.NOT_AN_IMAGE}, tenths


@pytest.mark.filterwarnings("ignore")  # an error here would pass for a decoder's
@given(
    st.binary(max_size=600),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"8BPS\0\x01", b"P6 "]),
)
@settings(max_examples=400, deadline=None)
def test_random_bytes_raise_nothing_but_a_rejection(content: bytes, signature: bytes) -> None:
    _decoded_or_rejected(signature + content)


VALID = {name: make() for name, (make, _) in FORMATS.items()} | {name: make() for name, (make, *_) in MODES.items()}


@pytest.mark.filterwarnings("ignore")  # an error here would pass for a decoder's
@given(st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_damaged_picture_raises_nothing_but_a_rejection(data: st.DataObject) -> None:
    image = bytearray(VALID[data.draw(st.sampled_from(sorted(VALID)))])
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(image) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                image[at] = data.draw(st.integers(0, 255))
            case "cut":
                del image[at : at + data.draw(st.integers(1, 20))]
            case _:
                image[at:at] = data.draw(st.binary(max_size=8))
        if not image:
            break
    _decoded_or_rejected(bytes(image))


def _decoded_or_rejected(image: bytes) -> None:
    try:
        decoded = decode(image, DecodeLimits(max_pixels=4_000_000), min_side=20)
    except ImageRejected:
        return
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape[2] == 3
    assert decoded.facts.width * decoded.facts.height > 0


# --- difficult files from real corpora --------------------------------------------------------------------------------------

DECODES = {
    "avif_ok",
    "exif_orientation_example",
    "progressive_jpeg",
    "cmyk",
    "multi_frame_GIF",
    "multi_frame_WEBP",
    "multi_frame_PNG",
    "16bit_or_32bit_int",
    "lab",
}
UNREAD = {"EPS", "WMF", "FLI", "GRIB", "BUFR", "HDF5", "DDS", "BLP", "MCIDAS"}


def _fits(seen: Reason | None, found: set[str]) -> bool:
    if "empty_file" in found:
        return seen is Reason.EMPTY_FILE
    if found & DECODES:
        return seen is None
    if found & {f"opens_but_load_fails_{name}" for name in UNREAD}:
        return seen in {Reason.UNSUPPORTED_FORMAT, Reason.NOT_AN_IMAGE}
    if "decompression_bomb" in found:
        return seen is not None
    return seen is None or seen in {*BROKEN, Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED_FORMAT, Reason.TOO_MANY_PIXELS}


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")  # an error here would pass for a decoder's
def test_every_nasty_file_is_decoded_or_refused_for_a_fitting_reason(shared: Path) -> None:
    nasty = shared / "data" / "nasty"
    categories: dict[str, list[str]] = json.loads((nasty / "index.json").read_text())
    seen: dict[str, Reason | None] = {}
    started = time.perf_counter()
    with tarfile.open(nasty / "files.tar") as tar:
        for member in tar:
            opened = tar.extractfile(member) if member.isfile() else None
            if opened is None:
                continue
            seen[member.name.removeprefix("./")] = _outcome(opened.read(), LIMITS)
    assert time.perf_counter() - started < 60
    assert len(seen) == len(categories) == 218
    unfit = {name: (reason, categories[name]) for name, reason in seen.items() if not _fits(reason, set(categories[name]))}
    assert unfit == {}


def test_this_pillow_reads_what_the_product_promises() -> None:
    assert all(features.check(name) for name in ("jpg", "zlib", "webp", "avif", "jpg_2000", "libtiff", "littlecms2"))
