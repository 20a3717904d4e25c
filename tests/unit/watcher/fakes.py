"""The watcher's ports in memory, with a switch that ends the "process" at any operation, and the oracle of the end state."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np

from core import masks, points
from core.errors import ImageRejected, ImageSearchError, NoModel, Reason
from core.filenames import from_text, to_text
from core.ports import ANYTHING, CollectionSize, FacetCount, Hit, Match, Payload, Point, Prefix, Record, Where
from core.schemas import (
    AnalysedSegment,
    BBox,
    Embedding,
    EngineState,
    ImageAnalysis,
    ModelsInfo,
    Priority,
    SegmentMode,
    Space,
    TextEmbeddings,
    Vector,
)
from core.sql.connection import Connection
from watcher.app import RunningWatcher, running_watcher
from watcher.database import LEDGER_NAME
from watcher.ledger import FileLedger, Ledger
from watcher.settings import WatcherSettings

P = ParamSpec("P")
R = TypeVar("R")

DIM = 4


class Killed(BaseException):
    """`kill -9`: nothing may catch it and go on."""


@dataclass
class KillSwitch:
    """Counts operations; from the `at`-th on, nothing works any more."""

    at: int | None = None
    steps: int = 0
    dead: asyncio.Event = field(default_factory=asyncio.Event)

    def step(self) -> None:
        self.steps += 1
        if self.at is not None and self.steps >= self.at:
            self.dead.set()
            raise Killed


def models(fingerprint: str = "f1", *names: str) -> ModelsInfo:
    spaces = tuple(Space(collection=name, model_name=name, dim=DIM, text=True) for name in names or ("clip", "resnet"))
    return ModelsInfo(state=EngineState.READY, profile="fake", requested_profile="fake", spaces=spaces, fingerprint=fingerprint)


LOADING = ModelsInfo(state=EngineState.LOADING, profile="fake", requested_profile="fake")
NO_MODEL = ModelsInfo(state=EngineState.NO_MODEL, profile="none", requested_profile="auto", notice="put weights into MODELS_DIR")


def jpeg(body: str) -> bytes:
    """Bytes that begin and end like a JPEG; a digit in them is the number of segments that the fake finds."""
    return b"\xff\xd8\xff\xe0" + body.encode() + b"\xff\xd9"


def image_id_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def segments_in(content: bytes) -> int:
    digits = [byte - 48 for byte in content if 48 <= byte <= 57]
    return digits[0] if digits else 2


class FakeEmbedder:
    """`trouble` is asked before each picture for an error to raise; `away` is raised by every call while it is set.

    `before` are models that are still to be had beside those of the settings, by fingerprint.
    """

    def __init__(self, info: ModelsInfo | None = None, switch: KillSwitch | None = None) -> None:
        self.models = info or models()
        self.away: ImageSearchError | None = None
        self.trouble: Callable[[bytes], BaseException | None] = lambda _: None
        self.delay_s = 0.0
        self.before: dict[str, ModelsInfo] = {}
        self.analysed: Counter[str] = Counter()
        self.analysed_by: Counter[str] = Counter()
        self.modes: list[tuple[SegmentMode, Priority]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.extra_segments = 0
        self.switch = switch or KillSwitch()

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        if self.away:
            raise self.away
        return self._of(fingerprint)

    def _of(self, fingerprint: str | None) -> ModelsInfo:
        if fingerprint in {None, self.models.fingerprint}:
            return self.models
        return self.before.get(fingerprint or "", NO_MODEL)

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        raise NotImplementedError

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        self.switch.step()
        if self.away:
            raise self.away
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self.delay_s)
            trouble = self.trouble(image)
        finally:
            self.in_flight -= 1
        if trouble is not None:
            raise trouble
        if b"broken" in image:
            raise ImageRejected(Reason.TRUNCATED, "the picture ends too early")
        self.analysed[image_id_of(image)] += 1
        self.modes.append((segments, priority))
        info = self._of(fingerprint)
        if info.state is not EngineState.READY:
            raise NoModel("these models are gone")
        self.analysed_by[info.fingerprint] += 1
        return self._analysis(image, info)

    def _analysis(self, image: bytes, info: ModelsInfo) -> ImageAnalysis:
        vector: Vector = np.full(DIM, 0.5, dtype=np.float32)
        embeddings = tuple(Embedding(collection=space.collection, vector=vector) for space in info.spaces)
        mask = masks.encode(np.ones((2, 2), dtype=np.bool_))
        found = tuple(
            AnalysedSegment(n=n, label="thing", score=0.5, bbox=(0, 0, 1, 1), area=0.5, mask=mask, embeddings=embeddings)
            for n in range(segments_in(image) + self.extra_segments)
        )
        return ImageAnalysis(
            content_hash=image_id_of(image),
            width=4,
            height=3,
            format="JPEG",
            fingerprint=info.fingerprint,
            embeddings=embeddings,
            segments=found,
        )


class FakeStore:
    """A VectorStore of dictionaries. A write that is killed has written some of its points."""

    def __init__(self, switch: KillSwitch | None = None) -> None:
        self.points: dict[str, dict[str, Point]] = {}
        self.away: ImageSearchError | None = None
        self.switch = switch or KillSwitch()
        self.flushes = 0

    def _begin(self) -> None:
        self.switch.step()
        if self.away:
            raise self.away

    async def ensure(self, space: Space) -> None:
        self._begin()
        self.points.setdefault(space.collection, {})
        self.switch.step()

    async def collections(self) -> list[str]:
        self._begin()
        return sorted(self.points)

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        self._begin()
        for point in points:
            self.points[collection][point.id] = point
            self.switch.step()

    async def query(
        self,
        collection: str,
        vector: Vector,
        *,
        where: Where = ANYTHING,
        limit: int = 10,
        offset: int = 0,
        min_score: float | None = None,
        with_vectors: bool = False,
    ) -> list[Hit]:
        raise NotImplementedError

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        self._begin()
        held = self.points.get(collection, {})
        return [Record(one, held[one].payload) for one in ids if one in held]

    async def scroll(
        self,
        collection: str,
        *,
        where: Where = ANYTHING,
        with_payload: bool = True,
        with_vectors: bool = False,
        first: str | None = None,
        batch: int = 1000,
    ) -> AsyncIterator[Record]:
        self._begin()
        for point_id in sorted(self._matching(collection, where)):
            if first is None or point_id >= first:
                point = self.points[collection][point_id]
                yield Record(point_id, point.payload if with_payload else {}, point.vector if with_vectors else None)

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        self._begin()
        for point_id in self._matching(collection, where):
            point = self.points[collection][point_id]
            self.points[collection][point_id] = Point(point.id, point.vector, {**point.payload, **payload})
            self.switch.step()

    async def delete(self, collection: str, where: Where) -> None:
        self._begin()
        for point_id in self._matching(collection, where):
            del self.points[collection][point_id]
            self.switch.step()

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        self._begin()
        return len(self._matching(collection, where))

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        raise NotImplementedError

    async def sizes(self) -> list[CollectionSize]:
        if self.away:
            raise self.away
        return [CollectionSize(name, len(points), 4096, 4) for name, points in sorted(self.points.items())]

    async def drop(self, collection: str) -> None:
        self._begin()
        self.points.pop(collection, None)

    async def flush(self) -> None:
        self.flushes += 1

    def _matching(self, collection: str, where: Where) -> list[str]:
        return [one for one, point in self.points.get(collection, {}).items() if matches(point.payload, where)]


def matches(payload: Payload, where: Where) -> bool:
    assert not where.must_not
    for condition in where.must:
        value = payload.get(condition.key)
        if isinstance(condition, Match):
            if value not in condition.any_of:
                return False
        elif isinstance(condition, Prefix):
            if not str(value).startswith(condition.beginning):
                return False
        elif value is None or not (condition.gte or 0) <= value <= (condition.lte if condition.lte is not None else value):
            return False
    return True


class KillableLedger(FileLedger):
    """A ledger whose process can end before and after each operation."""

    def __init__(self, data_dir: Path, switch: KillSwitch) -> None:
        super().__init__(data_dir)
        self._switch = switch

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        self._switch.step()
        answer = await super().run(operation, *args, **kwargs)
        self._switch.step()
        return answer


class House:
    """One installation: folder, state and vectors outlive the watcher, which can be started again and again."""

    def __init__(self, root: Path) -> None:
        self.images = root / "images"
        self.state = root / "state"
        self.images.mkdir()
        self.embedder = FakeEmbedder()
        self.store = FakeStore()
        self.options: dict[str, Any] = {}

    def settings(self) -> WatcherSettings:
        quick = {"settle_s": 0.2, "truncated_after_s": 0.6, "orphan_grace_s": 0.15, "retry_min_s": 0.02, "retry_max_s": 0.1}
        return WatcherSettings(
            images_dir=self.images,
            data_dir=self.state,
            **{**quick, "outage_retry_max_s": 0.1, "shutdown_grace_s": 1, **self.options},
        )

    @asynccontextmanager
    async def running(self, ledger: Ledger | None = None) -> AsyncIterator[RunningWatcher]:
        async with running_watcher(self.settings(), self.embedder, self.store, ledger=ledger) as watcher:
            yield watcher

    def write(self, path: str, content: bytes) -> str:
        """Write a file in one go. Returns its image id."""
        file = self.images / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return image_id_of(content)

    def truth(self) -> dict[str, set[str]]:
        """Paths by image id, as the disk has them."""
        found: dict[str, set[str]] = {}
        for file in self.images.rglob("*"):
            if file.is_file() and not file.name.startswith("."):
                found.setdefault(image_id_of(file.read_bytes()), set()).add(to_text(file.relative_to(self.images).as_posix()))
        return found

    def ledger_rows(self, query: str) -> list[tuple[Any, ...]]:
        """Read the ledger from outside."""
        if (url := self.options.get("database_url")) is not None:
            import psycopg

            with psycopg.connect(url) as shared:
                return list(shared.execute(query.encode()))
        connection = sqlite3.connect(f"file:{self.state / LEDGER_NAME}?mode=ro", uri=True)
        try:
            return connection.execute(query).fetchall()
        finally:
            connection.close()

    def age(self) -> None:
        """Leave everything, while no watcher runs, as the first release would have."""
        added = {"layout", "names", "label_counts", "pixels", "orientation", "lat", "lon"}
        for held in self.store.points.values():
            for point in list(held.values()):
                kept = {key: value for key, value in point.payload.items() if key not in added}
                held[point.id] = Point(point.id, point.vector, kept)
        connection = sqlite3.connect(self.state / LEDGER_NAME)
        with connection:
            connection.execute("UPDATE images SET layout = 1")
        connection.close()

    def disagreements(self) -> list[str]:
        """Every way in which ledger or vectors differ from the disk."""
        truth = self.truth()
        broken = {one for one, paths in truth.items() if b"broken" in (self.images / from_text(next(iter(paths)))).read_bytes()}
        expected_states = {one: "failed" if one in broken else "indexed" for one in truth}
        states = dict(self.ledger_rows("SELECT image_id, state FROM images"))
        wrong = [f"states: {states} instead of {expected_states}"] if states != expected_states else []
        located = set(self.ledger_rows("SELECT path, image_id FROM paths WHERE image_id IS NOT NULL"))
        on_disk = {(path, one) for one, paths in truth.items() for path in paths}
        wrong += [f"paths: {located} instead of {on_disk}"] if located != on_disk else []
        for space in self.embedder.models.spaces:
            held = self.store.points.get(space.collection, {})
            wanted: set[str] = set()
            for one in truth.keys() - broken:
                seal = held.get(points.image_point_id(one))
                if seal is None:
                    wrong.append(f"{space.collection}: no point of {truth[one]}")
                    continue
                ids = {seal.id, *(points.segment_point_id(one, n) for n in range(seal.payload["segments"]))}
                wrong += [
                    f"{space.collection}: {held[i].payload['paths']}" for i in ids if set(held[i].payload["paths"]) != truth[one]
                ]
                wrong += [f"{space.collection}: an earlier layout" for i in ids if held[i].payload.get("layout") != points.LAYOUT]
                wanted |= ids
            if wanted != held.keys():
                wrong.append(f"{space.collection}: {len(held.keys() - wanted)} extra, {len(wanted - held.keys())} missing")
        return wrong

    async def agreed(self, timeout_s: float = 5.0) -> None:
        """Wait until disk, ledger and vectors agree."""
        await until(lambda: not self.disagreements(), timeout_s=timeout_s, why=self.disagreements)


async def until(check: Callable[[], bool], *, timeout_s: float = 5.0, why: Callable[[], object] = lambda: "") -> None:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        try:
            if check():
                return
        except (sqlite3.OperationalError, FileNotFoundError, KeyError):
            pass
        assert asyncio.get_running_loop().time() < deadline, f"not within {timeout_s} s: {why()}"
        await asyncio.sleep(0.01)
