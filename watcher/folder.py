"""The watched folder: which files in it could be pictures, and where a path of the ledger lies on the disk."""

from __future__ import annotations

import errno
import os
import stat as modes
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from core.errors import InvalidRequest, Unavailable
from core.filenames import from_text, is_storable, to_text
from watcher.locations import FileStat

_TEMPORARY_SUFFIXES = frozenset({".part", ".crdownload", ".tmp", ".partial", ".download"})
_SIGNED_64_BITS = 2**63 - 1  # a database's integers; a few file systems use the 64th bit of inode numbers


@dataclass(slots=True)
class WalkBatch:
    """Part of a walk: files with their stat, and the file systems that begin there."""

    files: list[tuple[str, FileStat]] = field(default_factory=list)
    mounts: dict[str, int] = field(default_factory=dict)


def is_temporary(path: str) -> bool:
    """Whether the name is one that a program gives a file while it writes it."""
    name = PurePosixPath(path)
    return name.suffix.lower() in _TEMPORARY_SUFFIXES or name.name.endswith("~")


def raise_if_ours(error: OSError) -> None:
    """Raises Unavailable where descriptors or memory are wanting, which tells nothing of any file."""
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        raise Unavailable(f"no file can be opened now: {error.strerror}", retry_after_s=1) from error


def stat_of(status: os.stat_result) -> FileStat:
    return FileStat(status.st_size, _wrapped(status.st_mtime_ns), status.st_ino & _SIGNED_64_BITS)


def _wrapped(number: int) -> int:
    """Itself within 64 bits with a sign: times after the year 2262 are beyond them."""
    return (number + 2**63) % 2**64 - 2**63


class Folder:
    """Paths are relative texts with `/` between the parts, as `core.filenames` writes them."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def locate(self, path: str) -> Path:
        """Where a path of the ledger lies."""
        return self.root / from_text(path)

    def relative(self, absolute: str) -> str | None:
        """The path as the ledger has it; None outside the folder, '' for the folder itself."""
        root = str(self.root)
        if absolute == root:
            return ""
        return to_text(absolute[len(root) + 1 :]) if absolute.startswith(f"{root}/") else None

    def checked(self, path: str) -> str:
        """A path that came from outside, known to lie within the folder. Raises InvalidRequest."""
        parts = path.split("/")
        if not path or not is_storable(path) or any(part in {"", ".", ".."} for part in parts):
            raise InvalidRequest("the path must be relative to the watched folder", field="path")
        try:
            parent = self.locate(path).parent.resolve()
        except (OSError, ValueError):
            raise InvalidRequest("the path cannot be followed", field="path") from None
        if not parent.is_relative_to(self.root.resolve()):
            raise InvalidRequest("the path must lie within the watched folder", field="path")
        return path

    def leads_away(self, folder: str) -> bool:
        """Whether symbolic links, in its place or above it, lead out of the watched folder."""
        return not Path(os.path.realpath(self.locate(folder))).is_relative_to(os.path.realpath(self.root))

    def walk(self, below: str = "", *, batch: int = 2000) -> Iterator[WalkBatch]:
        """Every visible regular file below a folder, in batches. Symbolic links to files are followed, to folders not.

        Raises Unavailable where descriptors or memory are wanting: what is not seen then is no less there.
        """
        start = self.locate(below)
        if (below and start.is_symlink()) or self.leads_away(below):
            return
        try:
            device = os.stat(start if not below else start.parent).st_dev  # noqa: PTH116 - a Path costs more than the stat
        except OSError:
            return
        found = WalkBatch(mounts={} if below else {"": device})
        pending = [(str(start), below, device)]
        while pending:
            folder, relative, device_above = pending.pop()
            try:
                device = os.stat(folder).st_dev  # noqa: PTH116
                if device != device_above:
                    found.mounts[relative] = device
                with os.scandir(folder) as entries:
                    for entry in entries:
                        _sort_in(entry, f"{relative}/" if relative else "", device, pending, found)
                        if len(found.files) >= batch:
                            yield found
                            found = WalkBatch()
            except OSError as error:  # what was known there is looked at path by path before it is forgotten
                raise_if_ours(error)
        yield found


def _sort_in(entry: os.DirEntry[str], prefix: str, device: int, pending: list[tuple[str, str, int]], found: WalkBatch) -> None:
    name = entry.name
    if name.startswith((".", "~$")):
        return
    try:
        if entry.is_dir(follow_symlinks=False):
            pending.append((entry.path, prefix + to_text(name), device))
            return
        status = entry.stat()
    except OSError:  # a broken link, or gone meanwhile
        return
    if modes.S_ISREG(status.st_mode):
        found.files.append((prefix + to_text(name), stat_of(status)))
