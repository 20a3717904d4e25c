"""Pictures in a folder, as the watcher sees them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from core.errors import Unavailable
from watcher import mounts, probe
from watcher.folder import Folder, WalkBatch, raise_if_ours
from watcher.locations import FileStat
from watcher.pictures import Verified
from watcher.probe import Absence, Seen

_EARLIEST_S, _LATEST_S = -62_135_596_800, 253_402_300_799
"""What a `datetime` can tell, the years 1 to 9999."""


class WatchedFolder:
    """See `watcher.pictures.Pictures`."""

    remedy = "mount it again; ingestion then goes on by itself"
    hashers = 2

    def __init__(self, folder: Folder, *, max_image_bytes: int) -> None:
        self.folder = folder
        self._max_image_bytes = max_image_bytes
        self._leases = probe.leases_work(folder.root)

    @property
    def name(self) -> str:
        return self.folder.root.name

    def is_there(self) -> bool:
        return self.folder.root.is_dir()

    def lost(self, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
        return mounts.lost_mounts(self.folder, devices, witnesses)

    def checked(self, path: str) -> str:
        return self.folder.checked(path)

    def walk(self, below: str = "") -> Iterator[WalkBatch]:
        return self.folder.walk(below)

    def stats(self, paths: Sequence[str]) -> list[FileStat | Absence]:
        led_away = self._led_away(paths)
        return [Absence.GONE if _folder_of(path) in led_away else probe.stat_file(self.folder.locate(path)) for path in paths]

    def _led_away(self, paths: Sequence[str]) -> set[str]:
        """Their folders that links lead out of the watched one."""
        return {folder for folder in {_folder_of(path) for path in paths} if self.folder.leads_away(folder)}

    def looks(self, files: Sequence[tuple[str, FileStat]], *, now: float) -> list[Seen | Absence]:
        return [probe.look(self.folder.locate(path), now=now, leases=self._leases) for path, _ in files]

    def content_hash(self, path: str, expected: FileStat) -> str | Absence | None:
        return probe.content_hash(self.folder.locate(path), expected)

    def read(self, path: str, image_id: str) -> Verified | None:
        return _read_verified(self.folder.locate(path), image_id, most_bytes=self._max_image_bytes)

    def remove(self, paths: Sequence[str]) -> None:
        led_away = self._led_away(paths)
        _unlink_all([self.folder.locate(path) for path in paths if _folder_of(path) not in led_away])


def _folder_of(path: str) -> str:
    return path.rpartition("/")[0]


def _read_verified(file: Path, image_id: str, *, most_bytes: int) -> Verified | None:
    """The file's bytes, if they are the image's; a file that is being written to is not."""
    try:
        with file.open("rb") as opened:
            if os.fstat(opened.fileno()).st_size > most_bytes:  # it was less when it was admitted
                return None
            body = opened.read()
            modified_s = os.fstat(opened.fileno()).st_mtime
    except OSError as error:
        raise_if_ours(error)
        return None
    if hashlib.sha256(body).hexdigest() != image_id:
        return None
    return Verified(body, datetime.fromtimestamp(min(max(modified_s, _EARLIEST_S), _LATEST_S), UTC))


def _unlink_all(files: list[Path]) -> None:
    """Remove the files. Raises Unavailable when one of them must stay."""
    for file in files:
        try:
            file.unlink(missing_ok=True)
        except OSError:
            raise Unavailable("the folder does not let its files be removed", retry_after_s=60) from None
