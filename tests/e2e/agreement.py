"""The oracle of the fault tests: folder, ledger, vectors and thumbnails, read from outside, must tell the same."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import qdrant_edge as edge
from PIL import Image

from core.filenames import to_text
from core.points import Kind, image_point_id, segment_point_id
from core.ports import Payload, Record

_OPTIONAL = frozenset({"ignored"})
"""Reasons of files that are none of the watcher's business, whatever else is expected of the folder."""


@dataclass(frozen=True)
class Truth:
    """What the disk says: image ids (content hashes) and the paths of each."""

    paths_by_image: dict[str, set[str]]

    @classmethod
    def of(cls, folder: Path) -> Truth:
        paths: dict[str, set[str]] = {}
        for path in folder.rglob("*"):
            name = path.relative_to(folder)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                image_id = hashlib.sha256(path.read_bytes()).hexdigest()
                paths.setdefault(image_id, set()).add(to_text(name.as_posix()))
        return cls(paths)

    def located(self) -> set[tuple[str, str]]:
        return {(path, image_id) for image_id, here in self.paths_by_image.items() for path in here}


class Readable(Protocol):
    """As much of a VectorStore as is looked at."""

    async def collections(self) -> list[str]: ...

    def scroll(self, collection: str) -> AsyncIterator[Record]: ...


def _generation(path: Path) -> int:
    _, _, generation = path.name.partition("@")
    return int(generation) if generation.isdecimal() else 0


class _EdgeReader:
    """The shards as they lie there: nothing is checked, repaired or swept before it is read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, edge.EdgeShard] = {}

    async def __aenter__(self) -> Self:
        for path in sorted(self._folder.iterdir(), key=_generation):
            collection, _, generation = path.name.partition("@")
            holds = not generation or (self._folder / f"{path.name}.ready").exists()
            if holds and (path / "segments").is_dir() and ".damaged" not in path.name and not path.name.startswith("."):
                self._shards[collection] = edge.EdgeShard.load(str(path))
        return self

    async def __aexit__(self, *_: object) -> None:
        for shard in self._shards.values():
            shard.close()

    async def collections(self) -> list[str]:
        return sorted(self._shards)

    async def scroll(self, collection: str) -> AsyncIterator[Record]:
        start: Any = None
        while True:
            request = edge.ScrollRequest(offset=start, limit=1000, filter=None, with_payload=True, with_vector=False)
            page, start = self._shards[collection].scroll(request)
            for point in page:
                yield Record(str(point.id), point.payload or {})
            if start is None:
                return


def disagreements(
    images: Path,
    state: Path,
    *,
    failed: frozenset[str] = frozenset(),
    vectors: AbstractAsyncContextManager[Readable] | None = None,
) -> list[str]:
    """Every way in which ledger, vectors or thumbnails differ from the folder; `failed` are the image ids that cannot be indexed.

    `vectors` says where they are, if not in the state's own folder, which nobody else may have open then.
    """
    truth = Truth.of(images)
    store = vectors or _EdgeReader(state / "vectors")
    with sqlite3.connect(f"file:{state / 'ledger.sqlite3'}?mode=ro", uri=True) as ledger:
        wrong = _ledger_disagreements(truth, ledger, failed)
        segments = dict(ledger.execute("SELECT image_id, segments FROM images WHERE state = 'indexed'"))
    ledger.close()
    return [*wrong, *asyncio.run(_vector_disagreements(truth, segments, store)), *_broken_thumbnails(state / "thumbnails")]


def _ledger_disagreements(truth: Truth, ledger: sqlite3.Connection, failed: frozenset[str]) -> list[str]:
    """Every file is indexed, or failed or refused with a reason; every row has its file."""
    rows = {row[0]: row[1:] for row in ledger.execute("SELECT image_id, state, reason, orphaned_at FROM images")}
    located = set(ledger.execute("SELECT path, image_id FROM paths WHERE image_id IS NOT NULL"))
    refused = dict(ledger.execute("SELECT path, reason FROM paths WHERE image_id IS NULL"))
    wrong = [f"ledger: {one} is at {path}, and the folder differs" for path, one in located - truth.located()]
    for path, image_id in truth.located() - located:
        if image_id not in failed and refused.get(path) not in _OPTIONAL:
            wrong.append(f"ledger: {path} is {refused.get(path, 'unknown')}, and not {image_id}")
    wrong += [
        f"ledger: {path} is refused, and not in the folder" for path in refused.keys() - {path for path, _ in truth.located()}
    ]
    for image_id, (state, reason, orphaned_at) in rows.items():
        expected = "failed" if image_id in failed else "indexed"
        if image_id not in truth.paths_by_image or orphaned_at is not None:
            wrong.append(f"ledger: {image_id} is not in the folder")
        elif state != expected or (state == "failed") != (reason is not None):
            wrong.append(f"ledger: {image_id} is {state} for {reason}")
    return wrong


async def _vector_disagreements(
    truth: Truth, segments: dict[str, int], vectors: AbstractAsyncContextManager[Readable]
) -> list[str]:
    """In each collection one image point an image and as many segment points as the ledger says, which all tell the same paths."""
    wrong: list[str] = []
    async with vectors as store:
        collections = await store.collections()
        if not collections and segments:
            wrong.append("vectors: there is no collection")
        for collection in collections:
            points = {record.id: record.payload async for record in store.scroll(collection)}
            wanted: set[str] = set()
            for image_id, count in segments.items():
                ids = {image_point_id(image_id), *(segment_point_id(image_id, n) for n in range(count))}
                wanted |= ids
                wrong += [f"{collection}: a point of {image_id} is missing" for _ in ids - points.keys()]
                wrong += _payload_disagreements(collection, truth, [points[one] for one in ids & points.keys()])
            wrong += [
                f"{collection}: {Kind(points[point_id]['kind'])} of {points[point_id]['image_id']} belongs to nothing"
                for point_id in points.keys() - wanted
            ]
    return wrong


def _payload_disagreements(collection: str, truth: Truth, payloads: list[Payload]) -> list[str]:
    return [
        f"{collection}: {payload['image_id']} lies at {payload['paths']}"
        for payload in payloads
        if set(payload["paths"]) != truth.paths_by_image.get(payload["image_id"], set())
    ]


def _broken_thumbnails(folder: Path) -> list[str]:
    """What has its name is whole; a name that begins with a dot is one that was never given."""
    wrong: list[str] = []
    for path in folder.rglob("*.webp"):
        if path.name.startswith("."):
            continue
        try:
            with Image.open(path) as picture:
                picture.load()
                side = int(path.stem.rpartition("-")[2])
                wrong += [f"thumbnails: {path.name} is {picture.size}"] if max(picture.size) > side else []
        except (OSError, ValueError) as error:
            wrong.append(f"thumbnails: {path.name}: {error}")
    return wrong
