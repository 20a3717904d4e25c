"""An installation without processes: the real watcher, ledger and Qdrant Edge over models that only pretend."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from core import files
from core.points import image_point_id, segment_point_id
from core.schemas import Embedding, ImageAnalysis, ModelsInfo, Vector
from core.vectors.edge import EdgeStore
from tests.unit.watcher.fakes import DIM, FakeEmbedder, House, image_id_of, jpeg, segments_in
from watcher.app import RunningWatcher, running_watcher

Stored = dict[str, dict[str, tuple[tuple[float, ...], str]]]
"""By collection and id: the vector, rounded, and the payload."""


class TellingEmbedder(FakeEmbedder):
    """Each picture and each region has a vector of its own, the same whenever it is asked for."""

    def _analysis(self, image: bytes, info: ModelsInfo) -> ImageAnalysis:
        analysis = super()._analysis(image, info)

        def embedded(n: int) -> tuple[Embedding, ...]:
            seed = int(image_id_of(image)[:12], 16) + n
            vector: Vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
            return tuple(Embedding(collection=space.collection, vector=vector) for space in info.spaces)

        segments = tuple(one.model_copy(update={"embeddings": embedded(one.n + 1)}) for one in analysis.segments)
        return analysis.model_copy(update={"embeddings": embedded(0), "segments": segments})


class RealHouse(House):
    """`images` and `state` outlive the watcher."""

    def __init__(self, root: Path) -> None:
        root.mkdir(exist_ok=True)
        super().__init__(root)
        self.root = root
        self.embedder = TellingEmbedder()

    def fill(self, count: int) -> None:
        for number in range(count):
            self.write(f"folder {number % 3}/picture {number:03}.jpg", jpeg(f"p{number % 4} {number}"))

    def copy(self, root: Path) -> RealHouse:
        """As the files are at this moment, times included."""
        made = RealHouse(root)
        for folder in ("images", "state"):
            if (self.root / folder).exists():
                shutil.rmtree(root / folder, ignore_errors=True)
                files.copy_tree_sparse(self.root / folder, root / folder)
        return made

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[RunningWatcher, EdgeStore]]:
        async with (
            EdgeStore(self.state / "vectors") as vectors,
            running_watcher(self.settings(), self.embedder, vectors) as watcher,
        ):
            yield watcher, vectors

    async def indexed(self, watcher: RunningWatcher, vectors: EdgeStore, *, timeout_s: float = 60.0) -> None:
        """Wait until ledger and vectors hold all of the folder, and nothing else."""
        truth = self.truth()
        segments = {one: segments_in((self.images / next(iter(paths))).read_bytes()) for one, paths in truth.items()}
        wanted = {image_point_id(one) for one in truth}
        wanted |= {segment_point_id(one, n) for one, count in segments.items() for n in range(count)}
        async with asyncio.timeout(timeout_s):
            while True:
                status = await watcher.catalog.status()
                if status.images.indexed == len(truth) and not status.images.pending + status.images.running:
                    held = [
                        {one.id async for one in vectors.scroll(space.collection, with_payload=False)}
                        for space in self.embedder.models.spaces
                    ]
                    if all(ids == wanted for ids in held):
                        return
                await asyncio.sleep(0.02)


async def stored(vectors: EdgeStore) -> Stored:
    """All that Qdrant Edge holds."""
    found: Stored = {}
    for collection in await vectors.collections():
        ids = [record.id async for record in vectors.scroll(collection, with_payload=False)]
        records = await vectors.retrieve(collection, ids, with_vectors=True)
        found[collection] = {
            record.id: (tuple(np.round(record.vector, 4).tolist()), repr(sorted(record.payload.items())))
            for record in records
            if record.vector is not None
        }
    return found
