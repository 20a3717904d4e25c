"""File names as text that JSON, SQLite and Qdrant can hold, and back again without loss.

A name on Linux is bytes and need not be UTF-8. What is valid UTF-8 stays as it is; every other byte becomes one character of
U+EF80..U+EFFF (the private-use block that MirBSD's OPTU encoding set aside for it), and names that hold such characters
themselves have those escaped byte by byte. So two different names never share a text.
"""

from __future__ import annotations

import os
import re

_FIRST = 0xEF00
_UNSTORABLE = re.compile("[\udc80-\udcff\uef80-\uefff]")
_ESCAPED = re.compile("[\uef80-\uefff]")


def to_text(name: str) -> str:
    """The storable form of a name as `os.scandir` gives it (undecodable bytes as surrogates)."""
    if name.isascii() or not _UNSTORABLE.search(name):
        return name
    return _UNSTORABLE.sub(lambda found: "".join(chr(_FIRST + byte) for byte in os.fsencode(found.group())), name)


def from_text(text: str) -> str:
    """The name that `open` understands. Inverse of `to_text`."""
    if text.isascii() or not _ESCAPED.search(text):
        return text
    escaped = b"".join(
        bytes((ord(character) - _FIRST,)) if _ESCAPED.match(character) else character.encode() for character in text
    )
    return os.fsdecode(escaped)


def is_storable(path: str) -> bool:
    """Whether a path that came from outside could be one of ours: `to_text` leaves no lone surrogates."""
    return "\x00" not in path and not any("\ud800" <= character <= "\udfff" for character in path)


def is_hidden(path: str) -> bool:
    """Whether the file or any folder above it is hidden, or an office program's lock file."""
    return any(part.startswith((".", "~$")) for part in path.split("/"))
