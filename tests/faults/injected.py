"""What happens inside a process under test: its models cost nothing, its clock can be set, and it ends or waits at a chosen point.

The product has no failpoints of its own. This wraps the functions between which its steps lie, as they are imported, and asks a
folder (`FAULTS_DIR`) at each of their calls what is to happen there: a file named after the point says so, see `Rig.arm`.
"""

from __future__ import annotations

import asyncio
import importlib.abc
import importlib.machinery
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

_CLOCK = "clock"
_CLOCK_READ_EVERY_S = 0.02
_HELD_AT_MOST_S = 30.0


class Point(NamedTuple):
    """`before` or `after` each call of a function, named as it is found in its module."""

    module: str
    function: str
    when: str


POINTS: dict[str, Point] = {
    "file_seen": Point("watcher.probe", "look", "after"),
    "file_hashed": Point("watcher.probe", "content_hash", "after"),
    "image_unadmitted": Point("watcher.locations", "admit", "before"),
    "image_admitted": Point("watcher.locations", "admit", "after"),
    "image_claimed": Point("watcher.jobs", "claim", "after"),
    "file_read": Point("watcher.watched_folder", "_read_verified", "after"),
    "picture_unsent": Point("core.model_client", "ModelClient.analyse", "before"),
    "picture_received": Point("model_service.engine", "Engine.analyse", "before"),
    "picture_segmented": Point("tests.unit.model_service.fakes", "FakeSegmenter.segment", "after"),
    "picture_embedded": Point("tests.unit.model_service.fakes", "FakeTower.embed", "after"),
    "picture_analysed": Point("core.model_client", "ModelClient.analyse", "after"),
    "points_unwritten": Point("core.vectors.edge", "_upsert", "before"),
    "points_written": Point("core.vectors.edge", "_upsert", "after"),
    "image_unfinished": Point("watcher.jobs", "complete", "before"),
    "image_finished": Point("watcher.jobs", "complete", "after"),
    "path_forgotten": Point("watcher.locations", "forget", "after"),
    "image_condemned": Point("watcher.jobs", "condemn", "after"),
    "points_deleted": Point("core.vectors.edge", "EdgeStore.delete", "after"),
    "image_removed": Point("watcher.jobs", "remove", "after"),
    "payload_unset": Point("core.vectors.edge", "EdgeStore.set_payload", "before"),
    "payload_set": Point("core.vectors.edge", "EdgeStore.set_payload", "after"),
    "move_followed": Point("watcher.jobs", "mark_moved", "after"),
    "files_unlinked": Point("watcher.watched_folder", "_unlink_all", "after"),
    "scan_begun": Point("watcher.scans", "begin", "after"),
    "scan_marked": Point("watcher.scans", "mark", "after"),
    "mounts_recorded": Point("watcher.locations", "record_mounts", "after"),
    "collection_made": Point("core.vectors.edge_shards", "EdgeShards._create", "before"),
    "upload_written": Point("core.images.folder", "_write_durably", "after"),
    "upload_placed": Point("core.images.folder", "_place", "after"),
    "thumbnail_made": Point("searchsvc.thumbnails", "Thumbnails._make", "after"),
    "thumbnail_unnamed": Point("pathlib", "Path.replace", "before"),
    "thumbnail_kept": Point("core.file_cache", "FileCache.keep", "after"),
    "thumbnail_forgotten": Point("core.file_cache", "FileCache.forget", "after"),
    "feedback_kept": Point("searchsvc.feedback", "_insert", "after"),
    "index_copied": Point("shutil", "copytree", "after"),
    "index_placed": Point("core.vectors.edge_shards", "EdgeShards.placed", "after"),
    "index_unswitched": Point("core.vectors.edge_shards", "EdgeShards.switch", "before"),
    "index_switched": Point("core.vectors.edge_shards", "EdgeShards.switch", "after"),
}
"""Between any two of them lies one step of the product."""


class _Control:
    """One point, as the folder has it: nothing, `kill N`, `hold N` or `errno N CODE`, at the N-th call from when it was armed."""

    def __init__(self, folder: Path, name: str) -> None:
        self._armed = folder / name
        self._held = folder / f"{name}.held"
        self._order = ""
        self._hits = 0

    def _due(self) -> list[str] | None:
        try:
            order = self._armed.read_text()
        except OSError:
            return None
        if order != self._order:
            self._order, self._hits = order, 0
        self._hits += 1
        action, number, *rest = order.split()
        return [action, *rest] if self._hits >= int(number) else None

    def _act(self) -> bool:
        """Whether to wait."""
        match self._due():
            case ["kill", *_]:
                self._armed.unlink()  # once: whoever is started in its place lives
                os.kill(os.getpid(), signal.SIGKILL)
            case ["errno", code, *_]:
                raise OSError(int(code), os.strerror(int(code)))
            case ["hold", *_]:
                self._held.touch()
                return True
        return False

    def _released(self, since: float) -> bool:
        return not self._armed.exists() or time.monotonic() - since > _HELD_AT_MOST_S

    def hit(self) -> None:
        if self._act():
            since = time.monotonic()
            while not self._released(since):
                time.sleep(0.005)

    async def hit_async(self) -> None:
        if self._act():
            since = time.monotonic()
            while not self._released(since):
                await asyncio.sleep(0.005)


def _wrapped(call: Callable[..., Any], controls: Sequence[tuple[str, _Control]]) -> Callable[..., Any]:
    before = [control for when, control in controls if when == "before"]
    after = [control for when, control in controls if when == "after"]

    @wraps(call)
    def blocking(*args: Any, **kwargs: Any) -> Any:
        for control in before:
            control.hit()
        answer = call(*args, **kwargs)
        for control in after:
            control.hit()
        return answer

    @wraps(call)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        for control in before:
            await control.hit_async()
        answer = await call(*args, **kwargs)
        for control in after:
            await control.hit_async()
        return answer

    return awaited if inspect.iscoroutinefunction(call) else blocking


def _inject(module: ModuleType, folder: Path) -> None:
    wanted: dict[str, list[tuple[str, _Control]]] = {}
    for name, point in POINTS.items():
        if point.module == module.__name__:
            wanted.setdefault(point.function, []).append((point.when, _Control(folder, name)))
    for function, controls in wanted.items():
        *owners, last = function.split(".")
        owner: Any = module
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, last, _wrapped(getattr(owner, last), controls))


def _without_tensors(registry: ModuleType) -> None:
    from tests.unit.model_service.fakes import fake_parts

    registry.load = lambda settings, **_: fake_parts()  # type: ignore[attr-defined]


def _index_early(store: ModuleType) -> None:
    """An index for a collection that would be too small for one."""
    store.EdgeStore.__init__.__kwdefaults__["index_from"] = int(os.environ["FAULTS_INDEX_FROM"])  # type: ignore[misc]


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls back with a module of these names once it was imported, and before its importer sees it."""

    def __init__(self, hooks: dict[str, list[Callable[[ModuleType], None]]]) -> None:
        self._hooks = hooks

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._hooks:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            for hook in self._hooks[fullname]:
                hook(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _set_clock(folder: Path) -> None:
    """`time.time` runs ahead of, or behind, the system's clock by the seconds in a file, which may change at any time."""
    true_time, steady = time.time, time.monotonic
    offset, read_at = 0.0, -1.0

    def now() -> float:
        nonlocal offset, read_at
        if steady() - read_at > _CLOCK_READ_EVERY_S:
            read_at = steady()
            try:
                offset = float((folder / _CLOCK).read_text())
            except (OSError, ValueError):
                offset = 0.0
        return true_time() + offset

    time.time = now


def install() -> None:
    """Make this process one under test, where FAULTS_DIR says so."""
    named = os.environ.get("FAULTS_DIR")
    if named is None:
        return
    folder = Path(named)
    _set_clock(folder)
    hooks: dict[str, list[Callable[[ModuleType], None]]] = {}
    for module in {point.module for point in POINTS.values()}:
        if module in sys.modules:
            _inject(sys.modules[module], folder)
        else:
            hooks.setdefault(module, []).append(partial(_inject, folder=folder))
    if os.environ.get("FAULTS_MODELS") != "real":
        hooks.setdefault("model_service.registry", []).append(_without_tensors)
    if "FAULTS_INDEX_FROM" in os.environ:
        hooks.setdefault("core.vectors.edge", []).append(_index_early)
    sys.meta_path.insert(0, _AfterImport(hooks))
