"""The index of a collection that grows: built aside, then taken over with all that was written meanwhile.

The engine's `optimize()` holds the GIL for minutes, so a process of its own runs it on a copy (`core.vectors.edge_index`). Writes
wait while the copy is made and while the last of them are carried over; searches never do. Until the copy is ready and says so on the
disk it is nothing, and every write goes to the shard that answers: a kill at any moment loses the copy at most.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

import qdrant_edge as edge
import structlog

from core import files
from core.vectors.edge_index import BUILT, COPIED, READY
from core.vectors.edge_payload_indexes import add_index, missing_indexes
from core.vectors.edge_shard import Shard
from core.vectors.edge_shards import EdgeShards
from core.vectors.storage import VectorStorage

log = structlog.get_logger()

T = TypeVar("T")

_PORTION = 64
_FEW = 256
"""Points that are carried over while writes wait; more are carried over before."""

_ROUNDS = 20
_LONGEST_COPY_S = 600.0
_ROOM = 2.0
"""Times a shard's own size that must be free: the copy, and the index beside it while it is built."""

_GROWTH = 0.25
"""Build anew when the points without an index are this share of those with one: a search looks at each of them."""


class OnEngine(Protocol):
    """One call of the engine, on its thread."""

    def __call__(self, call: Callable[[], T], /) -> Awaitable[T]: ...


class IndexGrowth:
    """Builds indexes in the background, one at a time. `index_from` is how many points without an index are worth one.

    `run_gated` waits while another process copies the shards.
    """

    def __init__(
        self, shards: EdgeShards, run: OnEngine, run_gated: OnEngine, *, index_from: int, storage: VectorStorage
    ) -> None:
        self._shards = shards
        self._run = run
        self._run_gated = run_gated
        self._index_from = index_from
        self._storage = storage
        self._building: asyncio.Task[None] | None = None
        self._of: Shard | None = None

    def consider(self, shard: Shard) -> None:
        """Begin to build where it is due. Called on the loop, after writes."""
        if self._building is not None and not self._building.done():
            return
        if shard.unindexed - shard.left_unindexed >= max(self._index_from, _GROWTH * shard.indexed):
            self._of = shard
            self._building = asyncio.create_task(self._build(shard), name=f"index-{shard.collection}")

    async def settled(self) -> None:
        """Return when nothing is being built."""
        if self._building is not None:
            await asyncio.wait({self._building})

    async def abandon(self, shard: Shard) -> None:
        """Build no index of this shard, which is to go."""
        if self._of is shard:
            await self.close()

    async def close(self) -> None:
        """End what is being built; what there is of it is removed."""
        if self._building is not None:
            self._building.cancel()
            with suppress(asyncio.CancelledError):
                await self._building

    async def _build(self, shard: Shard) -> None:
        started, target = time.monotonic(), self._shards.workplace(shard)
        log.info("index_building", collection=shard.collection, points=shard.unindexed + shard.indexed)
        try:
            await self._copied_and_indexed(shard, target)
            target = await self._run(lambda: self._shards.placed(shard, target))
            await self._take_over(shard, target)
        except Exception:
            shard.left_unindexed = shard.unindexed  # the next try comes with as many points again
            log.exception("index_not_built", collection=shard.collection)
            await self._discard(shard, target)
        except asyncio.CancelledError:
            await self._discard(shard, target)
            raise
        else:
            took_s = round(time.monotonic() - started, 1)
            log.info("index_built", collection=shard.collection, indexed=shard.indexed, unindexed=shard.unindexed, took_s=took_s)
        finally:
            shard.touched = None
            shard.writable.set()

    async def _copied_and_indexed(self, shard: Shard, target: Path) -> None:
        await asyncio.to_thread(_check_room, shard)
        kept = (str(shard.dim), self._storage.quantization, str(self._storage.on_disk), str(os.getpid()))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "core.vectors.edge_index", str(shard.path), str(target), *kept, stdin=PIPE, stdout=PIPE
        )
        try:
            await _said(process, READY)  # a busy machine takes its time to start one, in which writes go on
            shard.writable.clear()
            await self._run(shard.record)  # behind every write that was under way
            await _told_to_copy(process)
            async with asyncio.timeout(_LONGEST_COPY_S):  # a disk that hangs must not keep writes waiting for ever
                await _said(process, COPIED)
            shard.writable.set()
            await _said(process, BUILT)
            await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    async def _take_over(self, shard: Shard, target: Path) -> None:
        engine = await self._run(lambda: edge.EdgeShard.load(str(target)))
        try:
            for key in await self._run(lambda: missing_indexes(engine)):
                await self._run(lambda key=key: add_index(engine, key))  # type: ignore[misc]
            for _ in range(_ROUNDS):
                if len(shard.touched or ()) <= _FEW:
                    break
                await self._carried_over(shard, engine)
            shard.writable.clear()
            await self._run(lambda: None)  # behind every write that was under way
            await self._carried_over(shard, engine)
            await asyncio.to_thread(files.sync_tree, target)  # one by one: it has hundreds of files, and descriptors may be few
        except BaseException:
            await self._run(engine.close)
            raise
        old = shard.path, shard.engine
        await self._run_gated(lambda: self._shards.switch(shard, target, engine))
        shard.writable.set()
        await self._run(old[1].close)
        await asyncio.to_thread(shutil.rmtree, old[0], ignore_errors=True)  # what stays is swept at the next start

    async def _discard(self, shard: Shard, target: Path) -> None:
        """Remove what was built, unless it holds by now; to the end, even when the store is closed meanwhile."""
        removing = asyncio.create_task(self._removed(shard, target))
        try:
            await asyncio.shield(removing)
        except asyncio.CancelledError:
            await removing
            raise

    async def _removed(self, shard: Shard, target: Path) -> None:
        if await self._run(lambda: shard.path) != target:  # on the engine's thread: behind a switch that may be under way
            await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)

    async def _carried_over(self, shard: Shard, engine: edge.EdgeShard) -> None:
        """What was written since the copy, or since the last time, as it is now."""
        ids = await self._run(shard.taken)  # on the engine's thread, as the writes are: none falls between
        for start in range(0, len(ids), _PORTION):
            some = ids[start : start + _PORTION]
            await self._run(lambda some=some: _copy_points(shard.engine, engine, some))  # type: ignore[misc]


def _copy_points(source: edge.EdgeShard, target: edge.EdgeShard, ids: Sequence[str]) -> None:
    found = source.retrieve([*ids], True, True)
    points = [edge.Point(one.id, one.vector, one.payload) for one in found if one.vector is not None]
    target.update(edge.UpdateOperation.upsert_points(points))
    gone = set(ids) - {str(one.id) for one in found}
    if gone:
        target.update(edge.UpdateOperation.delete_points([*gone]))


def _check_room(shard: Shard) -> None:
    """Raises OSError where a copy would fill the disk, on which the ledger and the journal lie as well."""
    if shutil.disk_usage(shard.path).free < _ROOM * shard.disk_bytes():
        raise OSError(errno.ENOSPC, "no room for a copy to build an index on")


async def _told_to_copy(process: Process) -> None:
    assert process.stdin is not None  # noqa: S101 - it was started with a pipe
    with suppress(ConnectionError):  # it ended: what it says next, which is nothing, tells so
        process.stdin.write(b"\n")
        await process.stdin.drain()


async def _said(process: Process, word: str) -> None:
    """Raises RuntimeError if the process ends, or says something else."""
    assert process.stdout is not None  # noqa: S101 - it was started with a pipe
    said = (await process.stdout.readline()).decode().strip()
    if said != word:
        raise RuntimeError(f"the index builder ended instead of saying {word!r}: {said!r}, exit {await process.wait()}")
