"""The folder of Qdrant Edge shards: one a collection, one process at a time. Blocking; for the thread of `core.vectors.edge` alone.

A shard writes each update to its journal (WAL) before it answers, so `kill -9` loses nothing; what a power cut may take is what
the operating system still holds in memory. Measured with 20,000 points of 512: loading takes 0.2 s, 1 s with all of them in the journal.

A collection begins in a folder of its name. Each index that is built (`core.vectors.edge_growth`) makes another generation of it,
`<name>@1`, `<name>@2`, which holds from the moment that a file `<name>@1.ready` lies beside it; all others are then left-overs.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, TypeVar
from uuid import uuid4

import qdrant_edge as edge
import structlog

from core import files
from core.databases import check_restored
from core.errors import InvalidRequest, VectorsUnavailable
from core.room import LEAST_FREE_BYTES, check_room
from core.seals import Seal
from core.vectors import edge_repair
from core.vectors.edge_config import shard_config
from core.vectors.edge_gate import Held, WriteGate
from core.vectors.edge_shard import Shard
from core.vectors.storage import VectorStorage

log = structlog.get_logger()

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_UNFINISHED = ".creating-"
_READY = ".ready"
_SEAL = ".seal"
_LOCK_POLL_S = 0.05
_OPEN_WAIT_S = 60.0
_CLOSE_WAIT_S = 4.0
_WHAT = "the vectors"
_ROOM_TO_OPEN = 16 * 2**20
_ROOM_TO_CREATE = LEAST_FREE_BYTES + 128 * 2**20
"""An empty shard with its payload indexes takes 105 MB."""


class EdgeShards:
    """Opens, creates and closes the shards of one folder."""

    def __init__(self, folder: Path, storage: VectorStorage) -> None:
        self._folder = folder
        self._storage = storage
        self._lock: IO[str] | None = None
        self._gate: WriteGate | None = None
        self._shards: dict[str, Shard] = {}
        self._doubted = False

    def open(self, *, lock_wait_s: float) -> None:
        """Take the folder and load every shard; a damaged one is replaced by what can be read of it.

        Raises VectorsUnavailable: it is in use; StorageFull; RestoreBrokenOff.
        """
        check_restored(self._folder.parent)
        files.make_folder(self._folder)
        check_room(self._folder, _WHAT, least_bytes=_ROOM_TO_OPEN)
        with ExitStack() as undo:
            undo.callback(self.close)
            self._lock = _lock(self._folder / ".lock", wait_s=lock_wait_s)
            self._gate = WriteGate(self._folder)
            with self._gate.writing(wait_s=_OPEN_WAIT_S):
                self._sweep()
                for collection, path in sorted(standing(self._folder).items()):
                    self._open(path, collection)
                for aside, collection in edge_repair.begun(self._folder):
                    self._replace(aside, collection, "its repair was broken off")
            undo.pop_all()

    def through_gate(self, call: Callable[[], T]) -> T:
        """A change of the files. Raises Held, and VectorsUnavailable when the store is closed."""
        if self._gate is None:
            raise VectorsUnavailable("The vectors are closed")
        with self._gate.writing():
            return call()

    def _open(self, path: Path, collection: str) -> None:
        seal = self._seal(path)
        wrong = edge_repair.wrong_with(path, seal.found(_files_of(path)))
        seal.remove()
        try:
            if wrong is None:
                self._shards[collection] = _load(path, collection)
                return
        except VectorsUnavailable:
            wrong = "it cannot be loaded"
        aside = edge_repair.set_aside(path, collection)
        _ready(path).unlink(missing_ok=True)
        self._replace(aside, collection, wrong)

    def _replace(self, aside: Path, collection: str, wrong: str) -> None:
        """Where nothing can be read of it, the collection is made anew, and filled, like one that never was."""
        points = 0
        if collection not in self._shards:
            rescued = self._workplace(collection)
            points = edge_repair.rescued(aside, rescued, self._storage)
            if points:
                self._shards[collection] = self._placed_first(collection, rescued)
        edge_repair.conclude(aside, wrong, points)

    def close(self) -> None:
        """Write everything to the disk and give the folder free."""
        with ExitStack() as stack:  # one that fails keeps none of the others from being closed
            for held in (self._lock, self._gate):
                if held is not None:
                    stack.callback(held.close)
            shards, gate, flushing = list(self._shards.values()), self._gate, False
            self._shards, self._lock, self._gate = {}, None, None
            if gate is not None and shards:
                with suppress(Held):  # what is not flushed lies in the journal, as after a kill
                    stack.enter_context(gate.writing(wait_s=_CLOSE_WAIT_S))
                    stack.callback(self._seal_all, shards)
                    flushing = True
            for shard in shards:
                stack.callback(shard.engine.close)
                if flushing:
                    stack.callback(self._flush, shard)

    def _flush(self, shard: Shard) -> None:
        try:
            shard.engine.flush()
        except BaseException:
            self.doubt()
            raise

    def _seal_all(self, shards: Sequence[Shard]) -> None:
        for shard in shards if not self._doubted else ():
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
        """Build the shard aside and rename it, so that no half-made one is ever found, whenever the process ends.

        Its payload indexes take a while, in which other collections are searched: `missing_indexes` tells of them.
        """
        if not _NAME.fullmatch(collection):
            raise InvalidRequest(f"{collection!r} cannot name a collection")
        check_room(self._folder, _WHAT, least_bytes=_ROOM_TO_CREATE)
        unfinished = self._workplace(collection)
        engine = edge.EdgeShard.create(str(unfinished), shard_config(dim, self._storage))
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
        _ready(path).unlink(missing_ok=True)  # of a switch that failed midway
        shutil.rmtree(path, ignore_errors=True)
        return built.rename(path)

    def switch(self, shard: Shard, path: Path, engine: edge.EdgeShard) -> None:
        """Let another generation, which is complete and on the disk, be the collection from now on."""
        before = _ready(shard.path)
        _ready(path).touch()
        sync_files(open_files([self._folder]))
        shard.path, shard.engine, shard.touched, shard.state = path, engine, None, object()
        shard.count()
        shard.left_unindexed = shard.unindexed
        before.unlink(missing_ok=True)

    def _seal(self, path: Path) -> Seal:
        return Seal(self._folder / f"{path.name}{_SEAL}")

    def drop(self, collection: str) -> list[Path]:
        """Let the collection be no more, whenever the process ends. Returns folders that are left to be removed."""
        shard = self._shards.pop(collection)
        shard.is_dropped = True
        shard.engine.close()
        present = [path for path in self._folder.iterdir() if _generation_of(path.name)[0] == collection and path.is_dir()]
        unfinished: list[Path] = []
        for path in sorted(present, key=lambda one: one == shard.path):  # what holds goes last: no other must take its place
            unfinished.append(path.rename(self._workplace(collection)))
            _ready(path).unlink(missing_ok=True)
        files.sync([self._folder])
        log.info("collection_dropped", collection=collection)
        return unfinished

    def _sweep(self) -> None:
        """Remove what was not finished, and generations that no longer hold."""
        for path in self._folder.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(path, ignore_errors=True)  # its builder may be about to end; what stays goes at the next start
            log.info("unfinished_collection_removed", name=path.name)
        held = standing(self._folder)
        for path in sorted(self._folder.iterdir()):
            collection, _ = _generation_of(path.name)
            if _holds_shard(path, collection) and path != held.get(collection):
                shutil.rmtree(path)
                log.info("left_over_generation_removed", name=path.name)
        for suffix in (_READY, _SEAL):
            for marker in self._folder.glob(f"*{suffix}"):
                if not (self._folder / marker.name.removesuffix(suffix)).exists():
                    marker.unlink()


def standing(folder: Path) -> dict[str, Path]:
    """The generation that holds, by collection. Where none does, a marker was lost: then it is the newest."""
    newest: dict[str, tuple[bool, int, Path]] = {}
    for path in folder.iterdir():
        collection, generation = _generation_of(path.name)
        if _holds_shard(path, collection):
            found = (generation == 0 or _ready(path).exists(), generation, path)
            newest[collection] = max(newest.get(collection, found), found)
    return {collection: path for collection, (_, _, path) in newest.items()}


def open_files(paths: list[Path]) -> list[int]:
    """Descriptors of these files and folders, for `sync_files`: opened here, they stay the same files when the engine renames them."""
    opened: list[int] = []
    with ExitStack() as undo:
        for path in paths:
            opened.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            undo.callback(os.close, opened[-1])
        undo.pop_all()
    return opened


def remove_trees(folders: Sequence[Path]) -> None:
    """What stays is swept at the next start."""
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


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


def _ready(path: Path) -> Path:
    """The marker by which this generation holds."""
    return path.with_name(f"{path.name}{_READY}")


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
