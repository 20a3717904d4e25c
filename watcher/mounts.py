"""The breaker: a file system that is not mounted is not a folder whose pictures were deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from watcher.folder import Folder

WITNESSES = 100
"""Known paths that are looked for when a file system has another device number than before."""


def is_lost(folder: Folder, mount: str, device: int, witnesses: Sequence[str]) -> bool:
    """Whether the file system that used to begin at `mount` is away.

    It is when there is nothing at all, or another device that holds none of the known files; a device number that merely
    changed (a restart, a network drive mounted again) still holds them. What held no known files cannot be lost.
    """
    if not witnesses:
        return False
    try:
        now = folder.locate(mount).stat().st_dev
    except OSError:
        return True
    return now != device and not any(_is_there(folder, path) for path in witnesses)


def _is_there(folder: Folder, path: str) -> bool:
    try:
        folder.locate(path).lstat()
    except OSError:
        return False
    return True


def lost_mounts(folder: Folder, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
    """Mount points whose file system is away; '' is the watched folder itself."""
    return {mount for mount, device in devices.items() if is_lost(folder, mount, device, witnesses.get(mount, ()))}


def is_below(path: str, mounts: set[str]) -> bool:
    """Whether the path lies on one of these."""
    return any(not mount or path == mount or path.startswith(f"{mount}/") for mount in mounts)
