"""Bytes of points in Qdrant Edge, on the disk and in memory. A server has the same engine."""

from __future__ import annotations

import asyncio
import hashlib
import json
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.corpus import Corpus
from core.points import image_point_id, segment_point_id
from core.ports import Payload, Point
from core.schemas import Space
from core.vectors.edge import EdgeStore
from core.vectors.storage import Quantization, VectorStorage

SPACE = Space(collection="sizing", model_name="none", dim=512, text=False)
_PARTS = {
    "matrix.dat": "vectors",
    "quantized.data": "short vectors",
    "payload_storage": "payload",
    "payload_index": "filters",
    "vector_index": "links",
    "id_tracker.mappings": "ids",
    "id_tracker.versions": "ids",
}
_BATCH = 500


class Stored(NamedTuple):
    """Bytes by part, of all points: blocks that the file system has given, since the engine reserves more than it fills."""

    points: int
    disk: Mapping[str, int]
    resident: int
    """Of memory that is not a file's, in a process that has opened the store and was asked."""
    mapped: int
    """Of memory that is a file's, after those questions."""
    index_cpu_s: float

    def a_point(self, fewer: Stored) -> dict[str, float]:
        """What each further point took on the disk, by part."""
        return {part: (self.disk[part] - fewer.disk[part]) / (self.points - fewer.points) for part in sorted(self.disk)}

    def resident_a_point(self, fewer: Stored) -> float:
        return (self.resident - fewer.resident) / (self.points - fewer.points)


def stored(folder: Path, pictures: Sequence[Sequence[Payload]], count: int, *, quantization: Quantization = "off") -> Stored:
    """`count` pictures with the payloads of these, in turn, under ids and names of their own, with an index over all of their points."""
    before = _children_cpu_s()
    points = asyncio.run(_filled(folder, pictures, count, quantization))
    index_cpu_s = _children_cpu_s() - before
    command = [sys.executable, "-m", "benchmarks.sizing.holding", str(folder)]
    held = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - a module of ours
    return Stored(points, _disk(folder), held["resident"], held["mapped"], index_cpu_s)


async def _filled(folder: Path, pictures: Sequence[Sequence[Payload]], count: int, quantization: Quantization) -> int:
    total = sum(len(pictures[n % len(pictures)]) for n in range(count))
    async with EdgeStore(folder, index_from=total, storage=VectorStorage(quantization)) as store:
        await store.ensure(SPACE)
        for batch in _points(pictures, count, total):
            await store.upsert(SPACE.collection, batch)
        await store.settled()
    return total


def _points(pictures: Sequence[Sequence[Payload]], count: int, total: int) -> Iterator[list[Point]]:
    corpus = Corpus(SPACE, total)
    batch: list[Payload] = []
    for n in range(count):
        batch += _renamed(pictures[n % len(pictures)], n)
        if len(batch) >= _BATCH or n == count - 1:
            yield [
                Point(_id(payload), vector, payload) for payload, vector in zip(batch, corpus.vectors(len(batch)), strict=True)
            ]
            batch = []


def _renamed(payloads: Sequence[Payload], n: int) -> list[Payload]:
    """Another picture of the same kind: no two have their hash, name, time or size in common."""
    image_id, folder, name = hashlib.sha256(f"{n}".encode()).hexdigest(), f"{n // 500:05d} holidays", f"img_{n:08d}.jpg"
    own = {
        "image_id": image_id,
        "paths": [f"photos/{folder}/{name}"],
        "folders": ["photos", f"photos/{folder}"],
        "names": [f"/{name}/"],
        "taken_at": 1.2e9 + 1000.0 * n,
    }
    return [{**payload, **own, "bytes": payload["bytes"] + n} for payload in payloads]


def _id(payload: Payload) -> str:
    image_id = payload["image_id"]
    return segment_point_id(image_id, payload["n"]) if payload["kind"] == "segment" else image_point_id(image_id)


def _disk(folder: Path) -> dict[str, int]:
    """The journal is left out: it is as long as it may become, from the first point on."""
    found = Counter[str]()
    for path in folder.rglob("*"):
        part = next((told for name, told in _PARTS.items() if name in path.parts), None)
        if part is not None and path.is_file():
            found[part] += path.stat().st_blocks * 512
    return dict(found)


def _children_cpu_s() -> float:
    """Of processes that ended: the index is built by one."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
