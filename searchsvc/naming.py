"""Safe names for uploaded files: whatever a client calls its picture, what reaches the disk is a plain name with a fitting suffix."""

from __future__ import annotations

import re
import unicodedata
from pathlib import PurePosixPath

from core.errors import InvalidRequest

MAX_NAME_BYTES = 200
_MAX_FOLDER_DEPTH = 16

_SUFFIXES: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".mpo"),
    "PNG": (".png", ".apng"),
    "GIF": (".gif",),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "DIB": (".dib", ".bmp"),
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k", ".jpf", ".jpx"),
    "ICO": (".ico",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga",),
    "PSD": (".psd",),
    "PCX": (".pcx",),
    "SGI": (".sgi", ".rgb", ".rgba", ".bw"),
}
"""By Pillow's name of the format, the usual suffix first."""

_KNOWN_SUFFIXES = {suffix for suffixes in _SUFFIXES.values() for suffix in suffixes}
_FORBIDDEN = re.compile(
    r'[<>:"|?*\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\uef80-\uefff]'
)
"""Control and bidirectional characters, what Windows refuses, and what `core.filenames` escapes with."""
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)


def file_name(offered: str | None, image_format: str) -> str:
    """A name that is safe on every file system, not hidden, and ends as the picture's true format does."""
    name = _plain((offered or "").replace("\\", "/").rpartition("/")[2])
    stem, suffix = _split(name)
    fitting = _SUFFIXES.get(image_format.upper(), (f".{image_format.lower()}",))
    suffix = suffix if suffix.lower() in fitting else fitting[0]
    return _short(stem or "picture", suffix) + suffix


def with_mark(name: str, mark: str) -> str:
    """The same name told apart: `cat.jpg` becomes `cat-<mark>.jpg`."""
    path = PurePosixPath(name)
    ending = f"-{mark}{path.suffix}"
    return _short(path.stem, ending) + ending


def folder_path(offered: str | None) -> str:
    """A folder below the watched one, `/` between parts; empty for the watched one itself. Raises InvalidRequest."""
    parts = PurePosixPath((offered or "").replace("\\", "/").strip().strip("/")).parts
    if len(parts) > _MAX_FOLDER_DEPTH:
        raise InvalidRequest("the folder lies too deep", field="folder")
    for part in parts:
        if part != _plain(part) or not _is_short(part):
            raise InvalidRequest("the folder's name cannot be used", field="folder")
    return "/".join(parts)


def _plain(name: str) -> str:
    name = _FORBIDDEN.sub("", unicodedata.normalize("NFC", name)).strip()
    name = name.lstrip(".~ ").rstrip(". ~")
    return f"_{name}" if _RESERVED.fullmatch(name) else name


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix; what is no picture's suffix belongs to the stem."""
    stem, dot, ending = name.rpartition(".")
    suffix = f"{dot}{ending}"
    return (stem.rstrip(". "), suffix) if dot and suffix.lower() in _KNOWN_SUFFIXES else (name, "")


def _short(stem: str, ending: str) -> str:
    room = MAX_NAME_BYTES - len(ending.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip(". ") or "picture"


def _is_short(part: str) -> bool:
    return 0 < len(part.encode()) <= MAX_NAME_BYTES
