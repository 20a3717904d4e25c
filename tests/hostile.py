"""Pictures made to do harm: small files that are large, slow, endless, or something else as well."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import pillow_heif
from PIL import Image

GIGABYTE = 2**30


def encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, image_format, **options)
    return written.getvalue()


def _photo(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(1).integers(0, 256, (side, side, 3), np.uint8))


# --- PNG -------------------------------------------------------------------------------------------------------------------------


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *, depth: int = 8, colours: int = 2, interlaced: int = 0, extra: bytes = b"") -> bytes:
    """A PNG of nothing but zeros: the better it compresses, the more there is."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours]
    row = 1 + (width * depth * channels + 7) // 8
    palette = png_chunk(b"PLTE", bytes(6)) if colours == 3 else b""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, interlaced))
    pixels = png_chunk(b"IDAT", zeros(row * height * (1 + interlaced)))
    return b"\x89PNG\r\n\x1a\n" + header + extra + palette + pixels + png_chunk(b"IEND", b"")


def _png_header(width: int, height: int) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


@cache
def zeros(size: int) -> bytes:
    """So many of them, deflated."""
    deflate, block = zlib.compressobj(9), bytes(2**20)
    out = [deflate.compress(block) for _ in range(size // len(block))]
    return b"".join([*out, deflate.compress(bytes(size % len(block))), deflate.flush()])


def _many_texts() -> bytes:
    one = png_chunk(b"tEXt", b"Comment\0" + b"x" * 40)
    two = png_chunk(b"zTXt", b"Comment\0\0" + zeros(2**20))
    return png(8, 8, extra=one * 20_000 + two * 2_000)


def _endless_apng() -> bytes:
    def control(n: int) -> bytes:
        return png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", n, 8, 8, 0, 0, 1, 100, 0, 0))

    first = png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + control(0)
    frames = b"".join(control(2 * n + 1) + png_chunk(b"fdAT", struct.pack(">I", 2 * n + 2) + zeros(200)) for n in range(20_000))
    return png(8, 8, extra=first).replace(png_chunk(b"IEND", b""), frames + png_chunk(b"IEND", b""))


# --- GIF -------------------------------------------------------------------------------------------------------------------------


def _gif_frame(left: int, top: int, width: int, height: int) -> bytes:
    return b"," + struct.pack("<HHHHB", left, top, width, height, 0) + b"\x02\x02\x44\x01\0"


def gif(screen: tuple[int, int], frame: tuple[int, int, int, int], frames: int = 1) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes([0, 0, 0, 255, 255, 255])
    return head + _gif_frame(*frame) * frames + b";"


# --- JPEG -------------------------------------------------------------------------------------------------------------------------


def _jpeg_resized(width: int, height: int, *, progressive: bool = False) -> bytes:
    """A small JPEG whose header tells of another size."""
    image = bytearray(encoded(_photo(), "JPEG", progressive=progressive))
    at = image.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    image[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(image)


def _segments(image: bytes) -> Iterator[tuple[int, bytes]]:
    """The markers of a JPEG with what belongs to each, a scan's entropy-coded part included."""
    at = 2
    while image[at + 1] != 0xD9:
        end = at + 2 + struct.unpack(">H", image[at + 2 : at + 4])[0]
        if image[at + 1] == 0xDA:
            while not (image[end] == 0xFF and image[end + 1] != 0 and not 0xD0 <= image[end + 1] <= 0xD7):
                end += 1
        yield image[at + 1], image[at:end]
        at = end


def jpeg_of_scans(scans: int, side: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each makes the decoder go over all of the picture."""
    image = encoded(Image.new("L", (side, side), 128), "JPEG", progressive=True)
    segments = list(_segments(image))
    last = b"".join(segment for _, segment in segments[max(n for n, (kind, _) in enumerate(segments) if kind == 0xC4) :])
    return b"\xff\xd8" + b"".join(segment for _, segment in segments) + last * scans + b"\xff\xd9"


def jpeg_with(marker: int, *contents: bytes) -> bytes:
    """A JPEG with segments after its first two bytes."""
    image = encoded(_photo(), "JPEG")
    extra = b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for content in contents)
    return image[:2] + extra + image[2:]


def _icc_in_jpeg() -> bytes:
    chunks = [b"ICC_PROFILE\0" + bytes([n, 255]) + bytes(65_000) for n in range(1, 256)]
    return jpeg_with(0xE2, *chunks)


# --- TIFF and EXIF ------------------------------------------------------------------------------------------------------------------

Entry = tuple[int, int, int, int]
"""Tag, type, count, value or offset."""


def ifd(entries: list[Entry], following: int = 0) -> bytes:
    packed = b"".join(struct.pack("<HHII", *entry) for entry in sorted(entries))
    return struct.pack("<H", len(entries)) + packed + struct.pack("<I", following)


def tiff(entries: list[Entry], *, following: int = 0, tail: bytes = b"") -> bytes:
    return b"II*\0" + struct.pack("<I", 8) + ifd(entries, following) + tail


def _tiff_of(width: int, height: int, *extra: Entry, compression: int = 1, tail: bytes = b"", following: int = 0) -> bytes:
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, compression),
        (262, 3, 1, 1),
        (273, 4, 1, 1000),
        (277, 3, 1, 1),
        (278, 4, 1, height),
        (279, 4, 1, max(1, len(tail))),
    ]
    replaced = {entry[0] for entry in extra}
    head = tiff([entry for entry in entries if entry[0] not in replaced] + list(extra), following=following)
    return head.ljust(1000, b"\0") + tail


def _deflated_tiff(side: int) -> bytes:
    return _tiff_of(side, side, compression=8, tail=zeros(side * side))


def exif(content: bytes) -> bytes:
    return jpeg_with(0xE1, b"Exif\0\0" + content)


_TURNED = (0x0112, 3, 1, 6)
EXIF_LIES: dict[str, Callable[[], bytes]] = {
    "an IFD that follows itself": lambda: exif(tiff([_TURNED], following=8)),
    "an EXIF directory that is the first one": lambda: exif(tiff([_TURNED, (0x8769, 4, 1, 8)])),
    "a GPS directory that is the first one": lambda: exif(tiff([_TURNED, (0x8825, 4, 1, 8)])),
    "directories in a ring": lambda: exif(tiff([(0x8769, 4, 1, 26)], tail=ifd([(0x8769, 4, 1, 8), (0xA005, 4, 1, 26)]))),
    "counts beyond all memory": lambda: exif(tiff([(tag, kind, 2**32 - 1, 8) for tag, kind in enumerate(range(1, 14), 0x0100)])),
    "sixty-five thousand entries": lambda: exif(b"II*\0\x08\0\0\0\xff\xff" + struct.pack("<HHII", 0x0112, 3, 1, 6) * 5_000),
    "an offset beyond the end": lambda: exif(b"II*\0\xff\xff\xff\x7f"),
    "an offset into itself": lambda: exif(tiff([(0x010F, 2, 4000, 8)])),
    "a rational over nothing": lambda: exif(tiff([(0x011A, 5, 1, 26)], tail=bytes(8))),
    "an orientation out of range": lambda: exif(tiff([(0x0112, 3, 1, 9)])),
    "an orientation that is a text": lambda: exif(tiff([(0x0112, 2, 4, 0x41414141)])),
    "two hundred orientations": lambda: exif(tiff([(0x0112, 3, 200, 8)])),
    "another size than the picture": lambda: exif(
        tiff([(0x0100, 4, 1, 2**31), (0x0101, 4, 1, 2**31), (0xA002, 4, 1, 1), _TURNED])
    ),
    "a thumbnail larger than the picture": lambda: exif(_with_thumbnail()),
    "a thumbnail where there is none": lambda: exif(
        tiff([_TURNED], following=26, tail=ifd([(0x0201, 4, 1, 2**31), (0x0202, 4, 1, 2**32 - 1)]))
    ),
    "nonsense of a maker": lambda: exif(tiff([(0x927C, 7, 2**31, 8), (0x8769, 4, 1, 26)], tail=ifd([(0x927C, 7, 60_000, 8)]))),
}
"""Each in a JPEG of 64 x 64 pixels, which is none the worse for it."""


def _with_thumbnail() -> bytes:
    inner = encoded(Image.new("L", (4000, 4000)), "JPEG")[:60_000]
    second = ifd([(0x0201, 4, 1, 60), (0x0202, 4, 1, len(inner)), (0x0103, 3, 1, 6)])
    return tiff([_TURNED], following=26, tail=second).ljust(80, b"\0")[:60] + inner


# --- the boxes of HEIC and AVIF, JPEG 2000 ---------------------------------------------------------------------------------------------


def _boxes_resized(image: bytes, width: int, height: int) -> bytes:
    at = image.index(b"ispe")
    return image[: at + 8] + struct.pack(">II", width, height) + image[at + 16 :]


def heic(image: Image.Image) -> bytes:
    written = io.BytesIO()
    pillow_heif.from_pillow(image).save(written)
    return written.getvalue()


def _jpeg2000(width: int, height: int, tile: int, components: int = 3) -> bytes:
    size = struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, tile, tile, 0, 0, components) + b"\x07\x01\x01" * components
    code = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x01\x05\x04\x04\x00\x01"
    quantised = b"\xff\x5c\x00\x13\x40" + bytes([0x40]) * 16
    tiles = b"".join(b"\xff\x90\0\x0a" + struct.pack(">HIBB", n, 14, 0, 1) + b"\xff\x93" for n in range(100))
    return b"\xff\x4f\xff\x51" + struct.pack(">H", len(size) + 2) + size + code + quantised + tiles + b"\xff\xd9"


# --- all of them ------------------------------------------------------------------------------------------------------------------------

TOO_LARGE: dict[str, Callable[[], bytes]] = {
    "png": lambda: png(8, 8).replace(png(8, 8)[8:33], _png_header(60_000, 60_000)),
    "gif, by its screen": lambda: gif((65_535, 65_535), (0, 0, 1, 1)),
    "gif, by a frame beyond its screen": lambda: gif((1, 1), (0, 0, 65_535, 65_535)),
    "jpeg": lambda: _jpeg_resized(65_500, 65_500),
    "jpeg, progressive": lambda: _jpeg_resized(65_500, 65_500, progressive=True),
    "tiff": lambda: _tiff_of(2**31, 2**31),
    "tiff, one row": lambda: _tiff_of(2**32 - 1, 1),
    "tiff, deflated": lambda: _deflated_tiff(20_000),
    "bmp": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    ),
    "bmp, upside down": lambda: (
        b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 60_000, -(2**31), 1, 24, 0, 0, 0, 0, 0, 0) + bytes(100)
    ),
    "ppm": lambda: b"P6 60000 60000 255\n" + bytes(100),
    "pfm": lambda: b"PF\n60000 60000\n-1.0\n" + bytes(100),
    "psd": lambda: b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 30_000, 30_000, 8, 3) + bytes(12) + b"\0\1" + bytes(200),
    "pcx": lambda: b"\x0a\x05\x01\x08" + struct.pack("<HHHH", 0, 0, 65_534, 65_534) + bytes(53) + b"\x03" + bytes(62),
    "sgi": lambda: struct.pack(">HBBHHHH", 474, 1, 1, 3, 65_535, 65_535, 3) + bytes(500),
    "tga": lambda: struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 65_535, 65_535, 24, 0) + b"\xff\0\0\0" * 10,
    "jpeg 2000": lambda: _jpeg2000(60_000, 60_000, 60_000),
    "jpeg 2000, of tiny tiles": lambda: _jpeg2000(60_000, 60_000, 1),
    "webp, by its canvas": lambda: (
        b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<II", 10, 0) + b"\xff\xff\xff" * 2 + b"VP8 " + bytes(4)
    ),
    "avif": lambda: _boxes_resized(encoded(_photo(), "AVIF"), 65_535, 65_535),
    "heic": lambda: _boxes_resized(heic(_photo()), 65_535, 65_535),
}
"""Beyond the limit on pixels, by what the header tells."""

JUST_WITHIN: dict[str, Callable[[], bytes]] = {
    "png of 144 megapixels": lambda: png(12_000, 12_000),
    "png of 144 megapixels with alpha": lambda: png(12_000, 12_000, colours=6),
    "png of 144 megapixels, 16 bits": lambda: png(12_000, 12_000, depth=16, colours=0),
    "png of 144 megapixels, 1 bit": lambda: png(12_000, 12_000, depth=1, colours=0),
    "png of 144 megapixels, interlaced": lambda: png(12_000, 12_000, colours=0, interlaced=1),
    "png of one row": lambda: png(140_000_000, 1, depth=1, colours=0),
    "png of one column": lambda: png(1, 10_000_000, depth=1, colours=0),
    "gif of 144 megapixels": lambda: gif((12_000, 12_000), (0, 0, 12_000, 12_000)),
    "webp of 144 megapixels": lambda: encoded(Image.new("RGBA", (12_000, 12_000)), "WEBP", lossless=True, method=0, quality=0),
    "jpeg of 144 megapixels": lambda: encoded(Image.new("L", (12_000, 12_000)), "JPEG"),
    "jpeg of 144 megapixels, progressive": lambda: encoded(Image.new("L", (12_000, 12_000)), "JPEG", progressive=True),
    "jpeg of 65500 columns": lambda: _jpeg_resized(65_500, 2_000, progressive=True),
    "tiff of 144 megapixels, deflated": lambda: _deflated_tiff(12_000),
    "tiff of 144 megapixels of floats": lambda: _tiff_of(
        12_000, 12_000, (258, 3, 1, 32), (339, 3, 1, 3), compression=8, tail=zeros(4 * 144_000_000)
    ),
    "jpeg 2000 of a hundred megapixels": lambda: _jpeg2000(10_000, 10_000, 10_000),
    "jpeg 2000 of a hundred million tiles": lambda: _jpeg2000(10_000, 10_000, 1),
    "jpeg 2000 of sixteen thousand components": lambda: _jpeg2000(1_000, 1_000, 1_000, components=16_384),
    "avif of 100 megapixels by its header": lambda: _boxes_resized(encoded(_photo(), "AVIF"), 10_000, 10_000),
    "heic of 100 megapixels by its header": lambda: _boxes_resized(heic(_photo()), 10_000, 10_000),
    "ppm of 144 megapixels of a file": lambda: b"P6 12000 12000 255\n" + bytes(100),
}
"""Allowed by their header; what they cost must be bounded all the same."""

COSTLY: dict[str, Callable[[], bytes]] = {
    "png with a colour profile of a gigabyte": lambda: png(8, 8, extra=png_chunk(b"iCCP", b"bomb\0\0" + zeros(GIGABYTE))),
    "png with a text of a gigabyte": lambda: png(8, 8, extra=png_chunk(b"zTXt", b"Comment\0\0" + zeros(GIGABYTE))),
    "png with an international text of a gigabyte": lambda: png(
        8, 8, extra=png_chunk(b"iTXt", b"Comment\0\x01\0\0\0" + zeros(GIGABYTE))
    ),
    "png with twenty thousand texts": _many_texts,
    "png of two thousand million frames": _endless_apng,
    "png with more pixels than it tells": lambda: png(8, 8).replace(
        png(8, 8)[33:], png_chunk(b"IDAT", zeros(GIGABYTE)) + png_chunk(b"IEND", b"")
    ),
    "gif of a million frames": lambda: gif((1, 1), (0, 0, 1, 1), frames=1_000_000),
    "gif with a comment of forty megabytes": lambda: (
        gif((1, 1), (0, 0, 1, 1))[:19] + b"!\xfe" + (b"\xff" + b"x" * 255) * 160_000 + b"\0"
    ),
    "webp of ten thousand frames": lambda: encoded(
        Image.new("RGB", (1, 1)),
        "WEBP",
        save_all=True,
        append_images=[Image.new("RGB", (1, 1), (n % 256, n // 256, 0)) for n in range(10_000)],
    ),
    "jpeg of two thousand scans": lambda: jpeg_of_scans(2_000, 1_000),
    "jpeg of four hundred scans": lambda: jpeg_of_scans(400, 12_000),
    "jpeg of thirty-four scans of 144 megapixels": lambda: jpeg_of_scans(24, 12_000),
    "jpeg with a colour profile in 255 parts": _icc_in_jpeg,
    "jpeg with a million markers": lambda: jpeg_with(0xE5, *[b""] * 1_000_000),
    "jpeg with sixteen megabytes of comments": lambda: jpeg_with(0xFE, *[b"x" * 65_000] * 250),
    "tiff with four thousand million strips": lambda: _tiff_of(1_000, 1_000, (273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)),
    "tiff of many samples": lambda: _tiff_of(1_000, 1_000, (277, 3, 1, 65_535)),
    "tiff whose directories are a ring": lambda: _tiff_of(10, 10, following=8, tail=bytes(100)),
    "tiff of tiles of four gigapixels": lambda: _tiff_of(
        1_000, 1_000, (322, 4, 1, 65_536), (323, 4, 1, 65_536), (324, 4, 1, 1000), (325, 4, 1, 10), compression=8
    ),
    "avif of a sequence": lambda: encoded(
        Image.new("RGB", (16, 16)),
        "AVIF",
        save_all=True,
        append_images=[Image.new("RGB", (16, 16), (n, n, n)) for n in range(200)],
    ),
    "ppm with an endless number": lambda: b"P6 " + b"1" * 10_000_000,
    "ppm with an endless comment": lambda: b"P6 #" + b"x" * 10_000_000,
    "pgm of text": lambda: b"P2 1000 1000 255\n" + b"1" * 10_000_000,
}
"""Small pictures that cost much, or would."""

ZERO_SIZED: dict[str, Callable[[], bytes]] = {
    "jpeg": lambda: _jpeg_resized(0, 0),
    "jpeg without rows": lambda: _jpeg_resized(64, 0),
    "png": lambda: b"\x89PNG\r\n\x1a\n" + _png_header(0, 0) + png(1, 1)[33:],
    "gif": lambda: gif((0, 0), (0, 0, 0, 0)),
    "tiff": lambda: _tiff_of(0, 0),
    "bmp": lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 200, 0, 0, 54, 40, 0, 0, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": lambda: b"P6 0 0 255\n",
    "tga": lambda: struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 24, 0),
    "psd": lambda: b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 0, 0, 8, 3) + bytes(20),
    "jpeg 2000": lambda: _jpeg2000(0, 0, 1),
}

SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
_LAUGHS = b"".join(b'<!ENTITY l%d "%s">' % (n, b"&l%d;" % (n - 1) * 10) for n in range(1, 10))
SVGS: dict[str, bytes] = {
    "plain": SVG,
    "with a declaration": b'<?xml version="1.0"?>\n' + SVG,
    "with a byte order mark": b"\xef\xbb\xbf" + SVG,
    "in UTF-16": SVG.decode().encode("utf-16"),
    "after white space": b"\n\n \t" * 20 + SVG,
    "after a comment": b"<!-- GIF89a -->" + SVG,
    "with a billion laughs": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY l0 "ha">' + _LAUGHS + b"]><svg>&l9;</svg>",
    "with a file of the machine": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg>&f;</svg>',
    "with an address elsewhere": b'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="http://127.0.0.1:1/"/></svg>',
    "compressed": gzip.compress(SVG),
}

POLYGLOTS: dict[str, Callable[[], bytes]] = {
    "gif and script": lambda: b"GIF89a" + struct.pack("<HHBBB", 0x2A2F, 10, 0x80, 0, 0) + bytes(6) + b"*/=1;alert(1);",
    "jpeg and zip": lambda: encoded(_photo(), "JPEG") + b"PK\x03\x04" + bytes(60) + b"PK\x05\x06" + bytes(18),
    "png and html": lambda: png(8, 8, extra=png_chunk(b"tEXt", b"Comment\0<script>alert(1)</script>")),
    "jpeg and php": lambda: jpeg_with(0xFE, b"<?php system($_GET['c']); ?>"),
    "pdf and jpeg": lambda: b"%PDF-1.4\n" + encoded(_photo(), "JPEG"),
    "bmp and script": lambda: b"BM/*" + bytes(2000) + b"*/=1",
    "svg after gif": lambda: b"GIF89a" + SVG,
    "postscript and tiff": lambda: b"%!PS\n" + _tiff_of(10, 10, tail=bytes(100)),
}
