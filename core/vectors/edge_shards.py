"""The folder of Qdrant Edge shards: one a collection, one process at a time. Blocking; for the thread of `core.vectors.edge` alone.

A shard writes each update to its journal (WAL) before it answers, so `kill -9` loses nothing; what a power cut may take is what
the operating system still holds in memory. Measured with 20,000 points of 512: loading takes 0.2 s, 1 s with all of them in the journal.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import qdrant_edge as edge
import structlog

from core.errors import InvalidRequest, VectorsUnavailable
from core.points import PAYLOAD_INDEXES, IndexType

log = structlog.get_logger()

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNFINISHED = ".creating-"
_LOCK_POLL_S = 0.05
_SCHEMA: dict[IndexType, edge.PayloadSchemaType | edge.KeywordIndexParams] = {
    IndexType.KEYWORD: edge.PayloadSchemaType.Keyword,
    IndexType.SUBSTRING: edge.KeywordIndexParams(prefix=True),
    IndexType.INTEGER: edge.PayloadSchemaType.Integer,
    IndexType.FLOAT: edge.PayloadSchemaType.Float,
}


@dataclass(frozen=True, slots=True)
class Shard:
    """A loaded collection."""

    path: Path
    dim: int
    engine: edge.EdgeShard

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

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: IO[str] | None = None
        self._shards: dict[str, Shard] = {}

    def open(self, *, lock_wait_s: float) -> None:
        """Take the folder and load every shard. Raises VectorsUnavailable: it is in use, or a shard cannot be read."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._lock = _lock(self._folder / ".lock", wait_s=lock_wait_s)
            self._sweep()
            for path in sorted(self._folder.iterdir()):
                if _holds_shard(path):
                    self._shards[path.name] = _load(path)
            undo.pop_all()

    def close(self) -> None:
        """Write everything to the disk and give the folder free."""
        with ExitStack() as stack:  # one that fails keeps none of the others from being closed
            if self._lock is not None:
                stack.callback(self._lock.close)
            for shard in self._shards.values():
                stack.callback(shard.engine.close)
                stack.callback(shard.engine.flush)
            self._shards, self._lock = {}, None

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
        unfinished, path = self._folder / f"{_UNFINISHED}{collection}", self._folder / collection
        shutil.rmtree(unfinished, ignore_errors=True)
        vectors = edge.EdgeVectorParams(size=dim, distance=edge.Distance.Cosine)
        engine = edge.EdgeShard.create(str(unfinished), edge.EdgeConfig(vectors=vectors, wal_enabled=True))
        for key in PAYLOAD_INDEXES:
            add_index(engine, key)
        engine.flush()
        engine.close()
        unfinished.rename(path)
        sync_files(open_files([self._folder]))
        log.info("collection_created", collection=collection, dim=dim)
        return _load(path)

    def _sweep(self) -> None:
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path)
            log.info("unfinished_collection_removed", name=path.name)


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


def _holds_shard(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None and ((path / "segments").is_dir() or (path / "edge_config.json").is_file())


def _load(path: Path) -> Shard:
    """Raises VectorsUnavailable with the collection's name; the engine's own words go to the log, since they hold paths."""
    try:
        engine = edge.EdgeShard.load(str(path))
        config = json.loads((path / "edge_config.json").read_text(encoding="utf-8"))
        return Shard(path, config["vectors"][""]["size"], engine)
    except Exception as error:  # the engine raises bare Exception, and a foreign configuration may fail in any way
        log.exception("collection_unreadable", collection=path.name)
        raise VectorsUnavailable(
            f"Collection {path.name} cannot be opened, its files are damaged or from another version: "
            f"move {path.name} out of the vectors folder of DATA_DIR and start again"
        ) from error
