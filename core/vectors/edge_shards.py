"""The folder of Qdrant Edge shards: one a collection, one process at a time. Blocking; for the thread of `core.vectors.edge` alone.

A shard writes each update to its journal (WAL) before it answers, so `kill -9` loses nothing; what a power cut may take is what
the operating system still holds in memory. Measured with 20,000 points of 512: loading takes 0.2 s, 1 s with all of them in the journal.

A collection begins in a folder of its name. Each index that is built (`core.vectors.edge_growth`) makes another generation of it,
`<name>@1`, `<name>@2`, which holds from the moment that a file `<name>@1.ready` lies beside it; all others are then left-overs.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from uuid import UUID, uuid4

import qdrant_edge as edge
import structlog

from core import files
from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, IndexType
from core.room import LEAST_FREE_BYTES, check_room
from core.seals import Seal
from core.vectors import edge_repair
from core.vectors.edge_config import shard_config
from core.vectors.storage import VectorStorage

log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNFINISHED = ".creating-"
_READY = ".ready"
_SEAL = ".seal"
_PAGE = 4096
_LOCK_POLL_S = 0.05
_WHAT = "the vectors"
_ROOM_TO_OPEN = 16 * 2**20
_ROOM_TO_CREATE = LEAST_FREE_BYTES + 128 * 2**20
"""An empty shard with its payload indexes takes 105 MB."""

_SCHEMA: dict[IndexType, edge.PayloadSchemaType | edge.KeywordIndexParams] = {
    IndexType.KEYWORD: edge.PayloadSchemaType.Keyword,
    IndexType.SUBSTRING: edge.KeywordIndexParams(prefix=True),
    IndexType.INTEGER: edge.PayloadSchemaType.Integer,
    IndexType.FLOAT: edge.PayloadSchemaType.Float,
}


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

    def __post_init__(self) -> None:
        self.writable.set()
        self.count()

    async def until_writable(self) -> None:
        while not self.writable.is_set():
            await self.writable.wait()

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


class EdgeShards:
    """Opens, creates and closes the shards of one folder."""

    def __init__(self, folder: Path, storage: VectorStorage) -> None:
        self._folder = folder
        self._storage = storage
        self._lock: IO[str] | None = None
        self._shards: dict[str, Shard] = {}
        self._doubted = False

    def open(self, *, lock_wait_s: float) -> None:
        """Take the folder and load every shard; a damaged one is replaced by what can be read of it.

        Raises VectorsUnavailable: it is in use; StorageFull.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        check_room(self._folder, _WHAT, least_bytes=_ROOM_TO_OPEN)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._lock = _lock(self._folder / ".lock", wait_s=lock_wait_s)
            self._sweep()
            edge_repair.conclude_broken_off(self._folder)
            for collection, path in sorted(self._standing().items()):
                shard = self._opened(path, collection)
                if shard is not None:
                    self._shards[collection] = shard
            undo.pop_all()

    def _opened(self, path: Path, collection: str) -> Shard | None:
        """None where nothing is left of it: the collection is made anew, and filled, like one that never was."""
        seal = self._seal(path)
        wrong = edge_repair.wrong_with(path, seal.found(_files_of(path)))
        seal.remove()
        try:
            if wrong is None:
                return _load(path, collection)
        except VectorsUnavailable:
            wrong = "it cannot be loaded"
        rescued = self._workplace(collection)
        any_left = edge_repair.set_aside(path, collection, wrong, rescued=rescued, storage=self._storage)
        self._ready(path).unlink(missing_ok=True)
        return self._placed_first(collection, rescued) if any_left else None

    def close(self) -> None:
        """Write everything to the disk and give the folder free."""
        with ExitStack() as stack:  # one that fails keeps none of the others from being closed
            if self._lock is not None:
                stack.callback(self._lock.close)
            for shard in self._shards.values():
                stack.callback(self._closed, shard)
            self._shards, self._lock = {}, None

    def _closed(self, shard: Shard) -> None:
        try:
            shard.engine.flush()
        finally:
            shard.engine.close()
        if not self._doubted:
            self._seal(shard.path).set(_files_of(shard.path))

    def doubt(self) -> None:
        """The engine failed: the next start looks at what it left."""
        self._doubted = True

    def names(self) -> list[str]:
        return sorted(self._shards)

    def get(self, collection: str) -> Shard | None:
        return self._shards.get(collection)

    def all(self) -> list[Shard]:
        return list(self._shards.values())

    def ensure(self, collection: str, dim: int) -> Shard:
        """Raises InvalidRequest for a name that is no plain folder name, or another dimension."""
        shard = self._shards.get(collection)
        if shard is None:
            shard = self._shards[collection] = self._create(collection, dim)
        if shard.dim != dim:
            raise InvalidRequest(f"Collection {collection} holds vectors of {shard.dim} numbers, not {dim}")
        return shard

    def _create(self, collection: str, dim: int) -> Shard:
        """Build the shard aside and rename it, so that no half-made one is ever found, whenever the process ends."""
        if not _NAME.fullmatch(collection):
            raise InvalidRequest(f"{collection!r} cannot name a collection")
        check_room(self._folder, _WHAT, least_bytes=_ROOM_TO_CREATE)
        unfinished = self._workplace(collection)
        engine = edge.EdgeShard.create(str(unfinished), shard_config(dim, self._storage))
        for key in PAYLOAD_INDEXES:
            add_index(engine, key)
        engine.flush()
        engine.close()
        log.info("collection_created", collection=collection, dim=dim)
        return self._placed_first(collection, unfinished)

    def _placed_first(self, collection: str, built: Path) -> Shard:
        """Give a shard the name of a collection that has none."""
        path = self._folder / collection
        if path.is_dir():
            edge_repair.clear_away(path)
        files.sync_tree(built)
        built.rename(path)
        files.sync([self._folder])
        return _load(path, collection)

    def workplace(self, shard: Shard) -> Path:
        """A folder that is not there, for a new generation while it is built; nobody else is ever given it."""
        return self._workplace(shard.collection)

    def _workplace(self, collection: str) -> Path:
        return self._folder / f"{_UNFINISHED}{collection}-{uuid4().hex}"

    def placed(self, shard: Shard, built: Path) -> Path:
        """Give a generation that was built its name; it does not hold yet."""
        _, generation = _generation_of(shard.path.name)
        path = self._folder / f"{shard.collection}@{generation + 1}"
        self._ready(path).unlink(missing_ok=True)  # of a switch that failed midway
        shutil.rmtree(path, ignore_errors=True)
        return built.rename(path)

    def switch(self, shard: Shard, path: Path, engine: edge.EdgeShard) -> None:
        """Let another generation, which is complete and on the disk, be the collection from now on."""
        before = self._ready(shard.path)
        self._ready(path).touch()
        sync_files(open_files([self._folder]))
        shard.path, shard.engine, shard.touched, shard.state = path, engine, None, object()
        shard.count()
        shard.left_unindexed = shard.unindexed
        before.unlink(missing_ok=True)

    def _ready(self, path: Path) -> Path:
        return self._folder / f"{path.name}{_READY}"

    def _seal(self, path: Path) -> Seal:
        return Seal(self._folder / f"{path.name}{_SEAL}")

    def _standing(self) -> dict[str, Path]:
        """The generation that holds, by collection. Where none does, a marker was lost: then it is the newest."""
        standing: dict[str, tuple[bool, int, Path]] = {}
        for path in self._folder.iterdir():
            collection, generation = _generation_of(path.name)
            if _holds_shard(path, collection):
                found = (generation == 0 or self._ready(path).exists(), generation, path)
                standing[collection] = max(standing.get(collection, found), found)
        return {collection: path for collection, (_, _, path) in standing.items()}

    def _sweep(self) -> None:
        """Remove what was not finished, and generations that no longer hold."""
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)
            log.info("unfinished_collection_removed", name=path.name)
        standing = self._standing()
        for path in sorted(self._folder.iterdir()):
            collection, _ = _generation_of(path.name)
            if _holds_shard(path, collection) and path != standing.get(collection):
                shutil.rmtree(path)
                log.info("left_over_generation_removed", name=path.name)
        for suffix in (_READY, _SEAL):
            for marker in self._folder.glob(f"*{suffix}"):
                if not (self._folder / marker.name.removesuffix(suffix)).exists():
                    marker.unlink()


def missing_indexes(engine: edge.EdgeShard) -> list[str]:
    """Fields that a collection of an earlier release has no index on yet."""
    present = engine.info().payload_schema
    return [key for key in PAYLOAD_INDEXES if key not in present]


def add_index(engine: edge.EdgeShard, key: str) -> None:
    """Once in the life of a collection; over 40,000 points it takes, and holds the GIL for, 0.5 to 1.5 s."""
    engine.update(edge.UpdateOperation.create_field_index(key, _SCHEMA[PAYLOAD_INDEXES[key]]))


def open_files(paths: list[Path]) -> list[int]:
    """Descriptors of these files and folders, for `sync_files`: opened here, they stay the same files when the engine renames them."""
    return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in paths]


def sync_files(descriptors: list[int]) -> None:
    """Bring the files onto the disk and close them. Unlike the engine's own `flush` this lets other threads run."""
    with ExitStack() as stack:
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        for descriptor in descriptors:
            os.fsync(descriptor)


def _lock(path: Path, *, wait_s: float) -> IO[str]:
    """The kernel frees the lock when its process ends, in whatever way; the wait covers a restart that overtakes the end."""
    lock = path.open("a+", encoding="ascii")
    for _ in _until(time.monotonic() + wait_s):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EAGAIN, errno.EACCES}:
                lock.close()
                raise
            continue
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock
    lock.seek(0)
    owner = lock.read() or "unknown"
    lock.close()
    raise VectorsUnavailable(f"The vectors in DATA_DIR are in use by another process (pid {owner}); only one may open them")


def _until(deadline: float) -> Iterator[None]:
    """At least once, then again and again until the deadline."""
    yield
    while time.monotonic() < deadline:
        time.sleep(_LOCK_POLL_S)
        yield


def _generation_of(folder: str) -> tuple[str, int]:
    collection, _, generation = folder.partition("@")
    return (collection, int(generation)) if generation.isdecimal() else (folder, 0)


def _holds_shard(path: Path, collection: str) -> bool:
    return _NAME.fullmatch(collection) is not None and ((path / "segments").is_dir() or (path / "edge_config.json").is_file())


def _files_of(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()]


def _load(path: Path, collection: str) -> Shard:
    """Raises VectorsUnavailable with the collection's name; the engine's own words go to the log, since they hold paths."""
    try:
        engine = edge.EdgeShard.load(str(path))
        config = json.loads((path / "edge_config.json").read_text(encoding="utf-8"))
        return Shard(collection, path, config["vectors"][""]["size"], engine)
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise  # the engine raises bare Exceptions, and a panic of its own; a foreign configuration may fail in any way
        log.exception("collection_unreadable", collection=collection)
        raise VectorsUnavailable(f"Collection {path.name} cannot be opened") from error
