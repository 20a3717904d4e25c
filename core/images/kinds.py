"""What kind of file some bytes begin."""

from __future__ import annotations

TELLING_BYTES = 32
"""As many as `content_type` looks at."""

UNKNOWN = "application/octet-stream"

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\xffO\xffQ", "image/j2c"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
)
_ISO_BRANDS = {b"avif": "image/avif", b"avis": "image/avif"}


def content_type(first_bytes: bytes) -> str:
    """By what the file is, not by what it is called: nothing that a browser would run can come of it."""
    if first_bytes[:4] == b"RIFF" and first_bytes[8:12] == b"WEBP":
        return "image/webp"
    if first_bytes[4:8] == b"ftyp":
        return _ISO_BRANDS.get(first_bytes[8:12], "image/heic")
    return next((kind for signature, kind in _SIGNATURES if first_bytes.startswith(signature)), UNKNOWN)
