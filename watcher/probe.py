"""One look at a file on the disk: what it is, who writes to it, how it ends, and its content hash."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat as modes
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from core.decode import sniff
from watcher.endings import looks_complete
from watcher.folder import raise_if_ours, stat_of
from watcher.locations import FileStat
from watcher.stability import Writing

_SNIFFED = 512
_CHUNK = 1 << 20
_F_SETSIG = 10  # <linux/fcntl.h>; Python's fcntl module does not name it
_LOCAL_FILE_SYSTEMS = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "tmpfs", "overlay", "f2fs", "zfs", "bcachefs", "ramfs", "jfs"}
)


class Absence(StrEnum):
    """What there is instead of a readable regular file."""

    GONE = "gone"
    FOLDER = "folder"
    ODD = "odd"
    DENIED = "denied"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Seen:
    """A regular file, opened and looked at."""

    stat: FileStat
    writing: Writing
    complete: bool | None
    image: bool
    age_s: float


def stat_file(file: Path) -> FileStat | Absence:
    """Stat without opening. A symbolic link to a file counts as the file, one to a folder as something odd."""
    try:
        status = file.stat()
        if modes.S_ISREG(status.st_mode):
            return stat_of(status)
        return Absence.FOLDER if modes.S_ISDIR(status.st_mode) and not file.is_symlink() else Absence.ODD
    except OSError as error:
        return _absence(error)


def look(file: Path, *, now: float, leases: Callable[[int], bool]) -> Seen | Absence:
    """Open the file and see. `leases` tells of a device number whether read leases can be trusted there."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        return _absence(error)
    try:
        status = os.fstat(descriptor)
        if not modes.S_ISREG(status.st_mode):
            return Absence.ODD
        writing = _writing(descriptor) if leases(status.st_dev) else Writing.UNKNOWN
        complete = looks_complete(lambda offset, length: os.pread(descriptor, length, offset), status.st_size)
        image = sniff(os.pread(descriptor, _SNIFFED, 0))
        return Seen(stat_of(status), writing, complete, image, now - status.st_mtime)
    except OSError as error:
        return _absence(error)
    finally:
        os.close(descriptor)


def content_hash(file: Path, expected: FileStat) -> str | Absence | None:
    """SHA-256 of the bytes; None when the file is not, or does not stay, the expected one."""
    digest = hashlib.sha256()
    try:
        with file.open("rb", buffering=0) as opened:
            if stat_of(os.fstat(opened.fileno())) != expected:
                return None
            while chunk := opened.read(_CHUNK):
                digest.update(chunk)
            unchanged = stat_of(os.fstat(opened.fileno())) == expected
        return digest.hexdigest() if unchanged and stat_of(file.stat()) == expected else None
    except OSError as error:
        return _absence(error)


def _writing(descriptor: int) -> Writing:
    """A read lease is refused with EAGAIN exactly while somebody has the file open for writing (fcntl(2), F_SETLEASE).

    Should a writer come while the lease is held (until the descriptor is closed, microseconds later), the kernel signals the
    holder: with SIGURG, which is ignored by default, instead of SIGIO, which would end the process.
    """
    try:
        fcntl.fcntl(descriptor, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return Writing.OPEN if error.errno == errno.EAGAIN else Writing.UNKNOWN
    return Writing.CLOSED


def _absence(error: OSError) -> Absence:
    """Raises Unavailable where it is no file's fault."""
    raise_if_ours(error)
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR:
            return Absence.GONE
        case errno.EACCES | errno.EPERM:
            return Absence.DENIED
        case errno.ELOOP | errno.ENXIO | errno.EISDIR:
            return Absence.ODD
        case _:
            return Absence.UNREADABLE


def leases_work(root: Path) -> Callable[[int], bool]:
    """A predicate on device numbers, read once: network file systems refuse leases for reasons of their own."""
    if not sys.platform.startswith("linux"):
        return lambda _: False
    try:
        mounted = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        root = root.resolve(strict=True)
        device_of_root = root.stat().st_dev
    except OSError:
        return lambda _: False
    local: set[int] = set()
    best = ("", "")
    for line in mounted:
        fields, _, rest = line.partition(" - ")
        _, _, numbers, _, mount_point, *_ = fields.split()
        file_system = rest.split()[0]
        if file_system in _LOCAL_FILE_SYSTEMS:
            major, minor = numbers.split(":")
            local.add(os.makedev(int(major), int(minor)))
        if root.is_relative_to(mount_point) and len(mount_point) >= len(best[0]):
            best = (mount_point, file_system)
    if best[1] in _LOCAL_FILE_SYSTEMS:  # btrfs shows other numbers in mountinfo than in stat
        local.add(device_of_root)
    return lambda device: device in local
