"""One loaded shard of Qdrant Edge: a collection, where it lies, and how much of it an index holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import qdrant_edge as edge

from core.errors import VectorsUnavailable
from core.room import check_room

_PAGE = 4096
_WHAT = "the vectors"


class Dropped(VectorsUnavailable):
    """The collection went meanwhile; whoever asks again finds none."""


@dataclass(slots=True)
class Shard:
    """A loaded collection. What changes when another generation takes over, and `touched`, belong to the engine's thread."""

    collection: str
    path: Path
    dim: int
    engine: edge.EdgeShard
    indexed: int = 0
    """Points that the index holds."""
    unindexed: int = 0
    """Points beside it, at least: a search compares each of them."""
    left_unindexed: int = 0
    """Those that the last build left so."""
    touched: set[str] | None = None
    """Ids of what was written since a copy was made; None while there is none."""
    state: object = field(default_factory=object)
    """Another one whenever an answer may differ from an earlier one."""
    writable: asyncio.Event = field(default_factory=asyncio.Event)
    is_dropped: bool = False

    def __post_init__(self) -> None:
        self.writable.set()
        self.count()

    async def until_writable(self) -> None:
        while not self.writable.is_set():
            await self.writable.wait()

    def check_kept(self) -> None:
        """Raises Dropped."""
        if self.is_dropped:
            raise Dropped(f"Collection {self.collection} was dropped")

    def count(self) -> None:
        info = self.engine.info()
        self.indexed = info.indexed_vectors_count
        self.unindexed = max(0, info.points_count - self.indexed)

    def record(self) -> None:
        """Remember from now on what is written."""
        self.touched = set()

    def taken(self) -> list[str]:
        """What was written since, and from now on anew."""
        ids, self.touched = sorted(self.touched or ()), set()
        return ids

    def write(
        self, operation: edge.UpdateOperation, *, ids: Sequence[str] | None = None, where: edge.Filter | None = None
    ) -> None:
        """Update the points of these ids, or those that `where` lets through. Raises StorageFull."""
        check_room(self.path, _WHAT)
        if self.touched is not None:
            self.touched.update(ids if ids is not None else self._ids(where))
        self.state = object()
        self.engine.update(operation)
        self.unindexed += len(ids or ())

    def _ids(self, where: edge.Filter | None) -> Iterator[str]:
        start: int | UUID | str | None = None
        while True:
            request = edge.ScrollRequest(offset=start, limit=_PAGE, filter=where, with_payload=False, with_vector=False)
            page, start = self.engine.scroll(request)
            yield from (str(point.id) for point in page)
            if start is None:
                return

    def journal_files(self) -> list[Path]:
        journal = self.path / "wal"
        return [journal, *(path for path in journal.iterdir() if path.is_file())]

    def journal_bytes(self) -> int:
        """Bytes of the journal that occupy the disk; its files are longer, and sparse."""
        return sum(path.stat().st_blocks * 512 for path in self.journal_files())

    def disk_bytes(self) -> int:
        """Bytes of all of its files that occupy the disk. Reads the folder only, so it may run beside the engine."""
        occupied = 0
        for path in self.path.rglob("*"):
            with suppress(OSError):  # the engine replaces its files as it works
                occupied += path.stat().st_blocks * 512
        return occupied

    def stored_files(self) -> list[Path]:
        return [path for path in (self.path / "segments").rglob("*") if path.is_file()]
