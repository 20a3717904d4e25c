"""Points as a large folder of photos would make them, without the photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.points import Kind, PictureFacts, image_point_id, paths_payload
from core.ports import Point
from core.schemas import Space, Vector
from core.vectors.edge import EdgeStore

_CENTRES_PER = 50
"""Pictures around each centre: as holidays and series of the same thing are."""


class Corpus:
    """`count` points of `space`, the same for the same seed. Vectors lie in clouds, as those of real pictures do."""

    def __init__(self, space: Space, count: int, *, seed: int = 0) -> None:
        self.space = space
        self.count = count
        self._random = np.random.default_rng(seed)
        self._centres = self._unit(self._random.normal(size=(max(1, count // _CENTRES_PER), space.dim)).astype(np.float32))

    def vectors(self, count: int, *, spread: float = 0.8) -> Vector:
        """Near centres drawn anew: shape (count, dim), of length 1."""
        around = self._random.normal(size=(count, self.space.dim)).astype(np.float32) / np.sqrt(self.space.dim)
        return self._unit(self._centres[self._random.integers(len(self._centres), size=count)] + spread * around)

    def between(self, count: int, *, clouds: int = 3, spread: float = 1.5) -> Vector:
        """Between centres, where words lie, which are near no single picture."""
        chosen = self._centres[self._random.integers(len(self._centres), size=(count, clouds))].sum(axis=1)
        around = self._random.normal(size=(count, self.space.dim)).astype(np.float32) / np.sqrt(self.space.dim)
        return self._unit(chosen + spread * around)

    def points(self, *, batch: int = 1000) -> Iterator[list[Point]]:
        for start in range(0, self.count, batch):
            size = min(batch, self.count - start)
            yield [_point(start + n, vector) for n, vector in enumerate(self.vectors(size))]

    @staticmethod
    def _unit(vectors: Vector) -> Vector:
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _point(n: int, vector: Vector) -> Point:
    image_id = f"{n:064x}"
    facts = PictureFacts(width=1600, height=1200, taken_at_s=1.6e9 + 60 * n, location=None, labels=())
    payload = {
        "image_id": image_id,
        "bytes": 500_000,
        "fingerprint": "benchmark",
        "kind": Kind.IMAGE.value,
        "labels": [],
        "segments": 0,
        **facts.payload(),
        **paths_payload([f"{n // 1000:04d}/photo-{n:07d}.jpg"]),
    }
    return Point(image_point_id(image_id), vector, payload)


async def stored(corpus: Corpus, folder: Path) -> None:
    """Write all of it into a store in `folder`, and build its index."""
    async with EdgeStore(folder, index_from=corpus.count) as store:
        await store.ensure(corpus.space)
        for points in corpus.points():
            await store.upsert(corpus.space.collection, points)
        await store.settled()
