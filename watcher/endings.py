"""Whether a file looks whole: each picture format ends in its own way, and a copy that is under way does not yet."""

from __future__ import annotations

from collections.abc import Callable

ReadAt = Callable[[int, int], bytes]
"""(offset, length) to bytes; fewer at the end of the file."""

_TAIL = 4096  # some cameras and editors write a few more bytes behind the marker
_MOST_BOXES = 64


def looks_complete(read_at: ReadAt, size: int) -> bool | None:
    """True with its end, False without, None where the format has no telling end or is unknown."""
    if size == 0:
        return False
    head = read_at(0, 16)
    for magic, offset, has_end in _ENDINGS:
        if head.startswith(magic, offset):
            return has_end(read_at, size)
    return None


def _jpeg(read_at: ReadAt, size: int) -> bool:
    return b"\xff\xd9" in _tail(read_at, size)


def _png(read_at: ReadAt, size: int) -> bool:
    return b"IEND\xaeB`\x82" in _tail(read_at, size)


def _gif(read_at: ReadAt, size: int) -> bool:
    return _tail(read_at, size).rstrip(b"\x00").endswith(b"\x00\x3b")  # the end of the last block, then the trailer


def _riff(read_at: ReadAt, size: int) -> bool:
    length = read_at(4, 4)
    return len(length) == 4 and int.from_bytes(length, "little") + 8 <= size


def _bmp(read_at: ReadAt, size: int) -> bool:
    length = read_at(2, 4)
    return len(length) == 4 and int.from_bytes(length, "little") <= size


def _tail(read_at: ReadAt, size: int) -> bytes:
    start = max(2, size - _TAIL)
    return read_at(start, _TAIL)


def _boxes_fill(read_at: ReadAt, size: int) -> bool:
    """HEIC and AVIF are boxes one behind the other (ISO/IEC 14496-12, 4.2); the last one must end with the file."""
    offset = 0
    for _ in range(_MOST_BOXES):
        if offset == size:
            return True
        head = read_at(offset, 16)
        if len(head) < 8:
            return False
        length = int.from_bytes(head[:4], "big")
        if length == 0:  # this box reaches to the end, wherever that is
            return True
        if length == 1 and len(head) == 16:
            length = int.from_bytes(head[8:], "big")
        if length < 8 or offset + length > size:
            return False
        offset += length
    return True


_ENDINGS: tuple[tuple[bytes, int, Callable[[ReadAt, int], bool]], ...] = (
    (b"\xff\xd8", 0, _jpeg),
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"GIF8", 0, _gif),
    (b"RIFF", 0, _riff),
    (b"BM", 0, _bmp),
    (b"ftyp", 4, _boxes_fill),
)
