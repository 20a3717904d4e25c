"""The ports in memory: deterministic, inspectable, and able to be away."""

from __future__ import annotations

import hashlib
import io
import re
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Self

import numpy as np
from PIL import Image

from core import masks
from core.errors import Conflict, ImageRejected, ImageSearchError, InvalidRequest, NotFound, Reason
from core.points import points_by_collection
from core.ports import (
    ANYTHING,
    CollectionSize,
    Condition,
    FacetCount,
    Hit,
    Match,
    Payload,
    Point,
    Prefix,
    Record,
    Substring,
    Where,
)
from core.schemas import (
    AnalysedSegment,
    BBox,
    Embedding,
    EngineState,
    Failure,
    FailurePage,
    GivenEmbeddings,
    ImageAnalysis,
    ImageRecord,
    ImageState,
    ImageStateRecord,
    ImageStates,
    ImportAnswer,
    ImportOutcome,
    ImportRequest,
    ImportResult,
    IngestionStatus,
    ModelCard,
    ModelsAction,
    ModelsCourse,
    ModelsInfo,
    PathStateRecord,
    Priority,
    Segment,
    SegmentMode,
    Space,
    StateCounts,
    TextEmbeddings,
    Vector,
    WatcherStatus,
)

DIM = 32
TEXT_SPACE = Space(collection="clip-fake-1", model_name="CLIP", dim=DIM, text=True)
IMAGE_SPACE = Space(collection="resnet-fake-1", model_name="ResNet", dim=DIM, text=False)
CARD = ModelCard(
    role="embedder", model_name="CLIP", source="fake/clip", revision="1", runtime="numpy", device="cpu", precision="float32"
)
READY = ModelsInfo(
    state=EngineState.READY,
    profile="clip",
    requested_profile="auto",
    spaces=(TEXT_SPACE, IMAGE_SPACE),
    models=(CARD,),
    fingerprint="fake-1",
)
WORDS = ("red", "green", "blue", "yellow", "black", "white")
_COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "yellow": (230, 220, 20)}
_COLOURS |= {"black": (5, 5, 5), "white": (250, 250, 250)}


def picture(colour: str, *, size: tuple[int, int] = (64, 48), image_format: str = "PNG", mark: int = 0) -> bytes:
    """A plain picture; `mark` makes its bytes differ from others of the same colour."""
    image = Image.new("RGB", size, _COLOURS[colour])
    image.putpixel((0, 0), (mark % 256, mark // 256 % 256, 7))
    written = io.BytesIO()
    image.save(written, image_format)
    return written.getvalue()


def image_id_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def word_vector(text: str) -> Vector:
    """The sum of the words' own directions: known words have an axis each, any other word one of the rest."""
    vector = np.zeros(DIM, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()) or ["?"]:
        axis = WORDS.index(word) if word in WORDS else len(WORDS) + hashlib.sha256(word.encode()).digest()[0] % (DIM - len(WORDS))
        vector[axis] += 1
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def picture_vector(image: Image.Image) -> Vector:
    """Near the word for its colour, with a little of its own so that no two pictures are quite the same."""
    pixel = np.asarray(image.convert("RGB").resize((1, 1)), dtype=np.float32).reshape(3)
    distances = {word: float(np.square(pixel - colour).sum()) for word, colour in _COLOURS.items()}
    vector = word_vector(min(distances, key=lambda word: distances[word]))
    own = np.frombuffer(hashlib.sha256(image.tobytes()).digest(), dtype=np.uint8).astype(np.float32)[:DIM]
    mixed = vector + 0.2 * own / np.linalg.norm(own)
    return np.asarray(mixed / np.linalg.norm(mixed), dtype=np.float32)


@dataclass
class FakeEmbedder:
    """Words and colours that mean the same lie near each other. `away` is raised by every call while it is set.

    `before` are models that are loaded beside, by fingerprint; any other fingerprint means `models`.
    """

    models: ModelsInfo = READY
    before: dict[str, ModelsInfo] = field(default_factory=dict)
    away: ImageSearchError | None = None
    text_calls: int = 0
    analysed: list[tuple[SegmentMode, Priority]] = field(default_factory=list)

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        self._check()
        return self._of(fingerprint)

    def _of(self, fingerprint: str | None) -> ModelsInfo:
        return self.before.get(fingerprint or "", self.models)

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        self._check()
        self.text_calls += 1
        return TextEmbeddings(space=self._of(fingerprint).spaces[0], vectors=tuple(word_vector(text) for text in texts))

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        self._check()
        self.analysed.append((segments, priority))
        if not image:
            raise ImageRejected(Reason.EMPTY_FILE, "the file is empty")
        try:
            opened = Image.open(io.BytesIO(image))
            opened.load()
        except (OSError, SyntaxError, ValueError):  # all that Pillow says of damaged bytes
            raise ImageRejected(Reason.NOT_AN_IMAGE, "these bytes are no picture") from None
        found = () if segments is SegmentMode.NONE or region else (self._segment(opened, fingerprint),)
        seen = opened
        if region is not None:
            x, y, width, height = region
            if x >= opened.width or y >= opened.height:
                raise InvalidRequest("the region lies outside the picture", field="region")
            seen = opened.crop((int(x), int(y), int(x + width), int(y + height)))
        return ImageAnalysis(
            content_hash=image_id_of(image),
            width=opened.width,
            height=opened.height,
            format=opened.format or "PNG",
            fingerprint=self._of(fingerprint).fingerprint,
            embeddings=self._embeddings(picture_vector(seen), fingerprint),
            segments=found,
        )

    def _segment(self, image: Image.Image, fingerprint: str | None) -> AnalysedSegment:
        """One segment: the left half."""
        mask = np.zeros((image.height, image.width), dtype=np.bool_)
        mask[:, : image.width // 2] = True
        return AnalysedSegment(
            n=0,
            label="half",
            score=0.75,
            bbox=(0, 0, image.width // 2, image.height),
            area=float(mask.mean()),
            mask=masks.encode(mask),
            embeddings=self._embeddings(picture_vector(image.crop((0, 0, max(1, image.width // 2), image.height))), fingerprint),
        )

    def _embeddings(self, vector: Vector, fingerprint: str | None) -> tuple[Embedding, ...]:
        return tuple(Embedding(collection=space.collection, vector=vector) for space in self._of(fingerprint).spaces)

    def _check(self) -> None:
        if self.away is not None:
            raise self.away


@dataclass
class FakeVectorStore:
    """Exact search over dictionaries."""

    stored: dict[str, dict[str, Point]] = field(default_factory=dict)
    away: ImageSearchError | None = None
    queries: int = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    async def ping(self) -> None:
        self._check()

    async def drop(self, collection: str) -> None:
        self._check()
        self.stored.pop(collection, None)

    async def ensure(self, space: Space) -> None:
        self._check()
        held = self.stored.setdefault(space.collection, {})
        if any(point.vector.shape != (space.dim,) for point in held.values()):
            raise InvalidRequest("the collection has another dimension")

    async def collections(self) -> list[str]:
        self._check()
        return sorted(self.stored)

    async def upsert(self, collection: str, points: Sequence[Point]) -> None:
        self._check()
        self.stored.setdefault(collection, {}).update({point.id: point for point in points})

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
        self._check()
        self.queries += 1
        hits = [
            Hit(point.id, float(point.vector @ vector), point.payload, point.vector if with_vectors else None)
            for point in self._matching(collection, where)
        ]
        hits = [hit for hit in hits if min_score is None or hit.score > min_score]
        return sorted(hits, key=lambda hit: (-hit.score, hit.id))[offset : offset + limit]

    async def retrieve(self, collection: str, ids: Sequence[str], *, with_vectors: bool = False) -> list[Record]:
        self._check()
        held = self.stored.get(collection, {})
        return [Record(key, held[key].payload, held[key].vector if with_vectors else None) for key in ids if key in held]

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
        self._check()
        for point in sorted(self._matching(collection, where), key=lambda point: point.id):
            if first is None or point.id >= first:
                yield Record(point.id, point.payload if with_payload else {}, point.vector if with_vectors else None)

    async def set_payload(self, collection: str, where: Where, payload: Payload) -> None:
        self._check()
        for point in self._matching(collection, where):
            self.stored[collection][point.id] = Point(point.id, point.vector, {**point.payload, **payload})

    async def delete(self, collection: str, where: Where) -> None:
        self._check()
        if where == ANYTHING:
            raise ValueError("an empty filter would delete everything")
        for point in self._matching(collection, where):
            del self.stored[collection][point.id]

    async def count(self, collection: str, *, where: Where = ANYTHING) -> int:
        self._check()
        return len(self._matching(collection, where))

    async def facet(self, collection: str, key: str, *, where: Where = ANYTHING, limit: int = 100) -> list[FacetCount]:
        self._check()
        counts = Counter(value for point in self._matching(collection, where) for value in values_of(point.payload, key))
        ranked = sorted(counts.items(), key=lambda counted: (-counted[1], counted[0]))
        return [FacetCount(value, count) for value, count in ranked[:limit]]

    async def sizes(self) -> list[CollectionSize]:
        self._check()
        return [CollectionSize(name, len(points), None, 4) for name, points in sorted(self.stored.items())]

    async def flush(self) -> None:
        self._check()

    def _matching(self, collection: str, where: Where) -> list[Point]:
        return [point for point in self.stored.get(collection, {}).values() if accepts(where, point.payload)]

    def _check(self) -> None:
        if self.away is not None:
            raise self.away


def accepts(where: Where, payload: Mapping[str, Any]) -> bool:
    """What Qdrant does with a filter."""
    return all(_holds(condition, payload) for condition in where.must) and not any(
        _holds(condition, payload) for condition in where.must_not
    )


def values_of(payload: Mapping[str, Any], key: str) -> list[Any]:
    value = payload.get(key)
    return value if isinstance(value, list) else [] if value is None else [value]


def _holds(condition: Condition, payload: Mapping[str, Any]) -> bool:
    values = values_of(payload, condition.key)
    if isinstance(condition, Match):
        return any(held in condition.any_of for held in values)
    if isinstance(condition, Substring):
        return any(condition.part in held for held in values)
    if isinstance(condition, Prefix):
        return any(held.startswith(condition.beginning) for held in values)
    low = -np.inf if condition.gte is None else condition.gte
    high = np.inf if condition.lte is None else condition.lte
    return any(low <= held <= high for held in values)


@dataclass
class FakeCatalog:
    """The watcher's knowledge, told instead of found out."""

    records: dict[str, ImageRecord] = field(default_factory=dict)
    failed: list[Failure] = field(default_factory=list)
    noticed: list[str] = field(default_factory=list)
    hinted: list[str] = field(default_factory=list)
    backfilled: list[str] = field(default_factory=list)
    resegmented: list[tuple[str, SegmentMode]] = field(default_factory=list)
    given: list[GivenEmbeddings] = field(default_factory=list)
    course: ModelsCourse = field(default_factory=lambda: ModelsCourse(searched=None, profile=None))
    turned: list[ModelsAction] = field(default_factory=list)
    away: ImageSearchError | None = None
    watching: Literal["watching", "folder_missing"] = "watching"
    waiting_for: str | None = None

    async def status(self) -> IngestionStatus:
        self._check()
        counts = {state.value: 0 for state in ImageState}
        for record in self.records.values():
            counts[record.state.value] += 1
        return IngestionStatus(
            images=StateCounts(**counts),
            segments=sum(record.segments for record in self.records.values()),
            rate_per_s=0.0,
            watcher=WatcherStatus(state=self.watching, observer="inotify", waiting_for=self.waiting_for),
            model_change=self.course.change,
        )

    async def image(self, image_id: str) -> ImageRecord:
        self._check()
        if image_id not in self.records:
            raise NotFound("there is no such image")
        return self.records[image_id]

    async def failures(self, *, limit: int = 100, offset: int = 0, ignored: bool = False) -> FailurePage:
        self._check()
        told = [failure for failure in self.failed if ignored or failure.reason is not Reason.IGNORED]
        return FailurePage(failures=tuple(told[offset : offset + limit]), total=len(told))

    async def states(self, image_ids: Sequence[str], paths: Sequence[str] = ()) -> ImageStates:
        self._check()
        found = [self.records[key] for key in image_ids if key in self.records]
        lying = [(path, record) for path in paths for record in self.records.values() if path in record.paths]
        told = {"image_id", "state", "reason", "detail"}
        return ImageStates(
            images=tuple(ImageStateRecord(**record.model_dump(include=told)) for record in found),
            paths=tuple(PathStateRecord(path=path, **record.model_dump(include=told)) for path, record in lying),
        )

    async def notice(self, path: str, *, backfill: bool = False) -> ImageRecord:
        self._check()
        self.noticed.append(path)
        self.backfilled += [path] * backfill
        return ImageRecord(image_id="0" * 64, state=ImageState.PENDING, paths=(path,), bytes=1, noticed_at=datetime.now(UTC))

    async def hint(self, paths: Sequence[str], *, backfill: bool = False) -> int:
        self._check()
        taken = [path for path in dict.fromkeys(paths) if ".." not in path]
        self.hinted += taken
        self.backfilled += taken if backfill else ()
        return len(taken)

    async def delete(self, image_id: str) -> None:
        await self.image(image_id)
        del self.records[image_id]

    async def resegment(self, image_id: str, mode: SegmentMode) -> list[Segment]:
        await self.image(image_id)
        self.resegmented.append((image_id, mode))
        mask = masks.encode(np.ones((4, 4), dtype=np.bool_))
        return [Segment(n=0, label="whole", score=0.9, bbox=(0, 0, 4, 4), area=1.0, mask=mask)]

    async def take_embeddings(self, request: ImportRequest) -> ImportAnswer:
        self._check()
        self.given += request.given
        lying = {path: record.image_id for record in self.records.values() for path in record.paths}
        results = []
        for record in request.given:
            image_id = record.image_id or lying.get(record.path or "")
            known = ImportOutcome.INDEXED if image_id in self.records else ImportOutcome.UNKNOWN
            results.append(ImportResult(outcome=known, image_id=image_id))
        return ImportAnswer(results=tuple(results), checked=request.checks, least_agreement=1.0)

    async def models(self) -> ModelsCourse:
        self._check()
        return self.course

    async def turn_models(self, action: ModelsAction) -> ModelsCourse:
        if self.course.change is None:
            raise Conflict("no change of models is under way")
        self.turned.append(action)
        return self.course

    def _check(self) -> None:
        if self.away is not None:
            raise self.away


async def index(
    embedder: FakeEmbedder,
    vectors: FakeVectorStore,
    catalog: FakeCatalog,
    content: bytes,
    *paths: str,
    taken: datetime | None = None,
) -> str:
    """Make one picture searchable, as the watcher would. Returns its image id."""
    analysis = await embedder.analyse(content)
    at = taken or datetime(2024, 6, 15, 12, tzinfo=UTC)
    for collection, points in points_by_collection(analysis, paths=paths, size_bytes=len(content), file_time=at).items():
        await vectors.upsert(collection, points)
    catalog.records[analysis.content_hash] = ImageRecord(
        image_id=analysis.content_hash,
        state=ImageState.INDEXED,
        paths=tuple(sorted(paths)),
        bytes=len(content),
        width=analysis.width,
        height=analysis.height,
        segments=len(analysis.segments),
        noticed_at=at,
        indexed_at=at,
    )
    return analysis.content_hash
