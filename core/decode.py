"""Bytes to an upright RGB array, bounded before it is begun.

Limits are checked against the header, so a decompression bomb costs no more than reading it. Pillow opens only the formats listed
here: no PostScript interpreter, no outside program. Whatever a decoder raises over hostile bytes, the caller sees `ImageRejected`; of one
that crashes, hangs or eats memory the caller dies, and so services call this in processes of its own (`core.decoding`). Those import
this module and little else: no wire model belongs here.
"""

from __future__ import annotations

import importlib
import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from core.errors import ImageRejected, Reason
from core.exif import Coordinates, Exif

# Pillow's JPEG opens MPO as well
_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "DIB", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA", "PSD", "PCX", "SGI")
_PLUGINS = ("Jpeg", "Mpo", "Gif", "WebP", "Bmp", "Tiff", "Avif", "Jpeg2K", "Ppm", "Tga", "Psd", "Pcx", "Sgi")

_READ_SUFFIXES = (
    ".jpg .jpeg .jpe .jfif .mpo .png .apng .gif .webp .bmp .dib .tif .tiff .avif .avifs .heic .heics .heif .heifs .hif"
    " .jp2 .j2k .jpc .jpf .jpx .j2c .ppm .pgm .pbm .pnm .pfm .tga .icb .vda .vst .psd .pcx .sgi .rgb .rgba .bw"
)
_OTHER_SUFFIXES = (
    " .ico .svg .svgz .eps .ps .wmf .emf .fli .flc .dds .blp .icns .cur .xbm .xpm .im .spider .grb .grib .bufr .qoi .jxl .fits"
    " .cr2 .cr3 .nef .arw .dng .orf .rw2 .raf .pef .srw"
)
IMAGE_SUFFIXES = frozenset((_READ_SUFFIXES + _OTHER_SUFFIXES).split())
"""Lower-case suffixes of image formats, read by us or not: a file with one of them is expected to become an image."""

_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|BM.{4}\0{4}|II\*\0|MM\0\*|II\+\0|MM\0\+"
    rb"|....ftyp(?:avif|avis|heic|heix|hevc|heim|heis|mif1|msf1)|\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51|8BPS\0\x01",
    re.DOTALL,
)
_KNOWN_BUT_UNREAD = re.compile(
    rb"\s*(?:<\?xml|<svg|<!DOCTYPE svg|%!PS|\xc5\xd0\xd3\xc6|GRIB|BUFR|DDS |BLP[12]|\xd7\xcd\xc6\x9a|icns|.{4}[\x11\x12]\xaf|\xff\x0a)"
)
_TRUNCATION_WORDS = re.compile(r"truncated|not enough|unexpected end|premature|end of file|incomplete|eof", re.IGNORECASE)

_BAND_PIXELS = 2**22
_MOST_TEXT_BYTES = 16 * 2**20
"""Of a text or a colour profile in a PNG, unpacked. Profiles of printers have a few megabytes; Pillow's own limit is one."""

_START_OF_SCAN = b"\xff\xda"
_MOST_SCANNED_PIXELS = 5 * 10**9
"""Of a JPEG, over all of its scans. Encoders write a dozen scans; each takes but a few bytes, and sends the decoder over all of the picture."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a picture may be at most, and may cost."""

    max_bytes: int = 64 * 2**20
    max_pixels: int = 150_000_000
    max_seconds: float = 20.0
    """Of a processor. This one and the next hold where a process of its own decodes (`core.decoding`)."""
    max_memory_bytes: int = 2 * 2**30


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of a picture beside its pixels. `width` and `height` are those of the upright original."""

    width: int
    height: int
    format: str
    taken_at: datetime | None
    location: Coordinates | None


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An upright picture. `pixels` is uint8 RGB (h, w, 3) and may be a reduction of the original."""

    pixels: Pixels
    facts: Facts


def sniff(head: bytes) -> bool:
    """Whether a file that begins so is a picture in a format that we read, whatever its name says. 32 bytes are enough."""
    return _MAGIC.match(head) is not None


def decode(image: bytes, limits: DecodeLimits, *, min_side: int | None = None, max_side: int | None = None) -> DecodedImage:
    """Decode, apply the EXIF orientation, and flatten to RGB on white; the first frame of an animation.

    With `min_side`, a JPEG may be decoded at a fraction of its size as long as the short side keeps that many pixels, which is
    three times faster (Pillow's `draft`). With `max_side`, a larger picture is reduced to it. Raises ImageRejected, whatever the bytes are.
    """
    picture, facts = upright(image, limits, min_side=min_side)
    if max_side is not None:
        reduce(picture, max_side)
    return DecodedImage(np.array(picture), facts)


def read_location(image: bytes) -> Coordinates | None:
    """Where the header says that it was taken, without a pixel decoded; of bytes that are no picture, None."""
    try:
        with _opened(image) as picture:
            return Exif.of(picture).location
    except ImageRejected:
        return None


def thumbnail(image: bytes, limits: DecodeLimits, side: int) -> bytes:
    """A WebP, upright, of at most `side` pixels a side, never enlarged. Raises ImageRejected."""
    picture, _ = upright(image, limits, min_side=side)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", quality=80)
    return encoded.getvalue()


def reduce(picture: Image.Image, max_side: int) -> None:
    """In its place, where it is larger: for a model to look at."""
    picture.thumbnail((max_side, max_side), Image.Resampling.BICUBIC, reducing_gap=2.0)


def check_bytes(image: bytes, limits: DecodeLimits) -> None:
    """Raises ImageRejected for no bytes, and for too many."""
    if not image:
        raise ImageRejected(Reason.EMPTY_FILE, "the file is empty")
    if len(image) > limits.max_bytes:
        raise ImageRejected(Reason.TOO_MANY_BYTES, f"the file is larger than {limits.max_bytes:,} bytes")


def upright(image: bytes, limits: DecodeLimits, *, min_side: int | None = None) -> tuple[Image.Image, Facts]:
    """`decode` up to Pillow's own RGB picture."""
    check_bytes(image, limits)
    with _opened(image) as picture:
        _check_pixels(picture.size, limits)
        if picture.format in {"JPEG", "MPO"}:
            _check_scans(image.count(_START_OF_SCAN), picture.size)
        with _failures_told():
            return _loaded(picture, limits, min_side)


@cache
def prepare_pillow() -> None:
    """Once a process: the formats of `_FORMATS` and no other, and the pixel limit is ours (Pillow's own is a global that warns first)."""
    for plugin in _PLUGINS:
        importlib.import_module(f"PIL.{plugin}ImagePlugin")
    PngImagePlugin.MAX_TEXT_CHUNK = _MOST_TEXT_BYTES
    pillow_heif.register_heif_opener(thumbnails=False)
    Image.MAX_IMAGE_PIXELS = None


_SILENCED = ("ignore", None, UserWarning, re.compile(r"PIL\."), 0)


def _silence_pillow() -> None:
    """Pillow warns of odd metadata, on which nothing depends; where warnings are errors, a good picture would become a bad one."""
    if _SILENCED not in warnings.filters:
        warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@contextmanager
def _opened(image: bytes) -> Iterator[Image.Image]:
    """Read the header only. Raises ImageRejected."""
    prepare_pillow()
    _silence_pillow()
    try:
        with _failures_told():
            picture = Image.open(io.BytesIO(image), formats=_FORMATS)
    except UnidentifiedImageError:
        raise _rejection_of_unidentified(image[:64]) from None
    with picture:
        yield picture


def _rejection_of_unidentified(head: bytes) -> ImageRejected:
    if sniff(head):
        return ImageRejected(Reason.CORRUPT, "the picture's header is damaged")
    if _KNOWN_BUT_UNREAD.match(head):
        return ImageRejected(Reason.UNSUPPORTED_FORMAT, "pictures in this format are not read")
    return ImageRejected(Reason.NOT_AN_IMAGE, "this is not an image")


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turn whatever a decoder raises into a reason; decoders of hostile bytes raise nearly everything."""
    try:
        yield
    except (ImageRejected, UnidentifiedImageError):
        raise
    except (Image.DecompressionBombError, MemoryError):
        raise ImageRejected(Reason.TOO_MANY_PIXELS, "the picture needs more memory than allowed") from None
    except Exception as error:  # noqa: BLE001 - see above
        if isinstance(error, EOFError | struct.error) or _TRUNCATION_WORDS.search(str(error)):
            raise ImageRejected(Reason.TRUNCATED, "the file ends before its picture does") from None
        raise ImageRejected(Reason.CORRUPT, "the picture cannot be decoded") from None


def _check_pixels(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageRejected(Reason.CORRUPT, "the picture has no pixels")
    if width * height > limits.max_pixels:
        raise ImageRejected(Reason.TOO_MANY_PIXELS, f"the picture has more than {limits.max_pixels:,} pixels")


def _check_scans(scans: int, size: tuple[int, int]) -> None:
    if scans * size[0] * size[1] > _MOST_SCANNED_PIXELS:
        raise ImageRejected(Reason.TOO_SLOW, f"the picture comes in {scans:,} scans, too many for its size")


def _loaded(picture: Image.Image, limits: DecodeLimits, min_side: int | None) -> tuple[Image.Image, Facts]:
    full, image_format = picture.size, picture.format or "unknown"
    if min_side is not None and image_format in {"JPEG", "MPO"}:
        scale = min(1.0, min_side / min(full))
        picture.draft(picture.mode, (max(1, int(full[0] * scale)), max(1, int(full[1] * scale))))
    picture.load()
    _check_pixels(picture.size, limits)  # some formats learn their true size only here
    exif = Exif.of(picture)
    turned = picture.transpose(exif.turn) if exif.turn is not None else picture
    width, height = full[::-1] if exif.swaps_sides else full
    return _rgb(turned), Facts(width, height, image_format, exif.taken_at, exif.location)


def _rgb(picture: Image.Image) -> Image.Image:
    """Flatten any mode to 8-bit RGB, transparency onto white."""
    if picture.mode == "RGB" and "transparency" not in picture.info:
        return picture
    if picture.mode == "F" or picture.mode.startswith("I"):
        return _by_bands(picture, _eight_bits(picture))
    if picture.mode == "LAB":
        return _from_lab(picture)
    if picture.has_transparency_data:
        return _by_bands(picture, _on_white)
    return picture.convert("RGB")


def bands(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """The picture in parts of whole rows, each with the row that it begins at: what is made of a part at a time takes little memory."""
    rows = max(1, _BAND_PIXELS // picture.width)
    if rows >= picture.height:
        yield 0, picture
        return
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(picture.height, top + rows)))


def _by_bands(picture: Image.Image, to_rgb: Callable[[Image.Image], Image.Image]) -> Image.Image:
    whole = Image.new("RGB", picture.size)
    for top, band in bands(picture):
        whole.paste(to_rgb(band), (0, top))
    return whole


def _on_white(picture: Image.Image) -> Image.Image:
    layered = picture.convert("RGBA")
    white = Image.new("RGBA", layered.size, "white")
    return Image.alpha_composite(white, layered).convert("RGB")


def _eight_bits(picture: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """Deep grey levels to 8 bits: unit floats and 16-bit integers by their full range, anything else by its own."""
    extremes = [_extremes(np.asarray(band)) for _, band in bands(picture)]
    low, high = min(low for low, _ in extremes), max(high for _, high in extremes)
    start, factor = 0.0, 1.0
    if low >= 0 and high <= 1 and picture.mode == "F":
        factor = 255
    elif low >= 0 and 255 < high <= 65535:
        factor = 1 / 257
    elif low < 0 or high > 255:
        start, factor = low, 255 / (high - low) if high > low else 0.0

    def converted(band: Image.Image) -> Image.Image:
        levels = np.nan_to_num(np.asarray(band).astype(np.float64), nan=0.0, posinf=high, neginf=low)
        grey = np.clip(np.round((levels - start) * factor), 0, 255)
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")

    return converted


def _extremes(levels: NDArray[np.generic]) -> tuple[float, float]:
    """Of those that are numbers."""
    numbers = levels[np.isfinite(levels)]
    return (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)


def _from_lab(picture: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(picture, lab, srgb, outputMode="RGB")
    if converted is None:
        raise ValueError("the colours cannot be converted")
    return converted
