"""What the watcher asks of where the pictures lie: a folder (`watched_folder`) or a bucket (`watched_bucket`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from watcher.folder import WalkBatch
from watcher.locations import FileStat
from watcher.probe import Absence, Seen

ObserverKind = Literal["inotify", "native", "polling", "listing"]


@dataclass(frozen=True, slots=True)
class Verified:
    """Bytes that are the image's."""

    body: bytes
    file_time: datetime


class Pictures(Protocol):
    """Every call but the properties blocks on a disk or a network. Raises Unavailable while that cannot tell."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    @property
    def remedy(self) -> str:
        """What to do when it is away, for people."""
        ...

    @property
    def hashers(self) -> int:
        """How many files are best read at once."""
        ...

    def is_there(self) -> bool: ...

    def lost(self, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
        """Where what is known may only be out of sight (`watcher.mounts`): '' is all of it. By mount, its number and some known paths."""
        ...

    def checked(self, path: str) -> str:
        """A path that came from outside, known to lie within. Raises InvalidRequest."""
        ...

    def walk(self, below: str = "") -> Iterator[WalkBatch]:
        """All visible files, with what their `stats` are."""
        ...

    def stats(self, paths: Sequence[str]) -> list[FileStat | Absence]: ...

    def looks(self, files: Sequence[tuple[str, FileStat]], *, now: float) -> list[Seen | Absence]:
        """At files of which this was just seen."""
        ...

    def content_hash(self, path: str, expected: FileStat) -> str | Absence | None:
        """SHA-256 of the bytes; None when the file is not, or does not stay, the expected one."""
        ...

    def read(self, path: str, image_id: str) -> Verified | None:
        """The file's bytes, if they are the image's."""
        ...

    def remove(self, paths: Sequence[str]) -> None:
        """Raises Unavailable when one of them must stay."""
        ...
