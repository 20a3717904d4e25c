"""What a source names: one picture a row, and where it lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote, urlsplit

from imagesearch.pictures import printable

BATCH = 1000
"""Rows that are read at once, which is all of a source that is in memory."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_PLACE = 4096
_HIDDEN = (".", "~$")
"""How a part of a path begins that the watcher leaves alone; `.` and `..` are among them."""


class Kind(StrEnum):
    """Where a picture lies, and so how it is brought."""

    FILE = "file"
    URL = "url"
    OBJECT = "object"
    LYING = "lying"
    """In the watched folder or bucket already: it is only noticed and followed."""
    VECTOR = "vector"
    """A picture that lies there, by its id or path, whose vectors are to be brought."""
    NONE = "none"
    """The row names nothing that could be brought."""


@dataclass(frozen=True, slots=True)
class Row:
    """`place` is a local path, an address, or a path within the watched folder; of `Kind.NONE`, what is wrong."""

    kind: Kind
    place: str
    folder: str = ""
    name: str = ""
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """`cursor` is where the source goes on behind these rows."""

    rows: list[Row]
    cursor: str


class Source(Protocol):
    """Read in order, and again from any cursor."""

    @property
    def identity(self) -> str:
        """Differs where the cursors of another reading would mean something else."""
        ...

    @property
    def total(self) -> int | None:
        """How many rows there are, where that costs nothing to know."""
        ...

    def batches(self, cursor: str, *, most: int | None = None) -> Iterator[Batch]:
        """What lies behind the cursor, '' being the beginning; at most so many rows. Blocks. Raises UnreadableSource, OSError."""
        ...


class UnreadableSource(Exception):
    """The source cannot be read any further; the message says why."""


def bad_row(why: str) -> Row:
    return Row(Kind.NONE, why)


@dataclass(frozen=True, slots=True)
class Naming:
    """What becomes of a place: its name below the watched folder, or the knowledge that it lies there already.

    `watched` is the watched folder or bucket as it is seen from here.
    """

    folder: str = ""
    watched: str | None = None

    def local(self, path: Path, below: PurePosixPath, *, sha256: str | None = None, name: str | None = None) -> Row:
        """`below` is what is kept of the path."""
        text = str(path)
        if not is_text(text):
            return bad_row(f"the name is not UTF-8: {printable(text)}")
        if self.watched is not None and "://" not in self.watched:
            absolute = path.absolute()
            if ".." not in absolute.parts and absolute.is_relative_to(Path(self.watched).absolute()):
                return self.lying(absolute.relative_to(Path(self.watched).absolute()).as_posix(), sha256=sha256)
        return self._named(Kind.FILE, text, below, sha256, name)

    def address(self, url: str, *, sha256: str | None = None, name: str | None = None) -> Row:
        """Of http, https and s3. Credentials in it are refused: the journal and the report would show them."""
        try:
            parts = urlsplit(url)
            host = parts.hostname
        except ValueError:
            return bad_row("url: not an address")
        if parts.scheme not in {"http", "https", "s3"} or not host or len(url) > _LONGEST_PLACE or not is_text(url):
            return bad_row("url: not an address of http, https or s3")
        if parts.username is not None:
            return bad_row("url: names a user; leave credentials out of manifests")
        if parts.scheme != "s3":
            return self._named(Kind.URL, url, PurePosixPath(unquote(parts.path).lstrip("/") or host), sha256, name)
        watched = f"{(self.watched or '').rstrip('/')}/"
        if watched.startswith("s3://") and url.startswith(watched):
            return self.lying(url[len(watched) :], sha256=sha256)
        key = url.removeprefix(f"s3://{parts.netloc}/")
        return self._named(Kind.OBJECT, url, PurePosixPath(key), sha256, name)

    def lying(self, path: str, *, sha256: str | None = None) -> Row:
        """`path` is within the watched folder or bucket. Of one that is never looked at nobody would ever hear."""
        if not is_text(path) or "\0" in path or len(path) > _LONGEST_PLACE:
            return bad_row("key: no name that a picture can have")
        if any(not part or part.startswith(_HIDDEN) for part in path.split("/")):
            return bad_row(f"key: no picture can be noticed there: {path}")
        return Row(Kind.LYING, path, sha256=sha256)

    def _named(self, kind: Kind, place: str, below: PurePosixPath, sha256: str | None, name: str | None) -> Row:
        told = PurePosixPath(name.strip("/")) if name else below
        if not is_text(str(told)):
            return bad_row(f"the name is not UTF-8: {printable(str(told))}")
        parts = [part for part in told.parts if part not in {"", "/", ".", ".."}]
        folder = PurePosixPath(self.folder, *parts[:-1])
        return Row(kind, place, "" if str(folder) == "." else str(folder), parts[-1] if parts else "picture", sha256)


def is_text(name: str) -> bool:
    return printable(name) == name


def checked_sha256(given: object) -> str | None:
    """None where none is given. Raises ValueError."""
    text = str(given or "").strip().lower()
    if text and not _SHA256.fullmatch(text):
        raise ValueError("sha256: not 64 hexadecimal digits")
    return text or None
