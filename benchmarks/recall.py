"""Does the index find what comparing with every vector finds?"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.corpus import Corpus, stored
from benchmarks.rows import Row, percentile_ms
from core.ports import Match, Where
from core.schemas import Space
from core.vectors.edge import EdgeStore

_IMAGES = Where(must=(Match("kind", ("image",)),))


async def rows(folder: Path, count: int, *, queries: int = 100) -> list[Row]:
    """R@10 of searches as the service makes them, filter and payload included: asked among the pictures, and between them."""
    space = Space(collection="recall", model_name="none", dim=512, text=False)
    corpus = Corpus(space, count)
    started = time.perf_counter()
    await stored(corpus, folder)
    built_s = time.perf_counter() - started
    asked = {"among them": corpus.vectors(queries, spread=1.0), "between them": corpus.between(queries)}
    everything = np.concatenate([np.stack([point.vector for point in points]) for points in Corpus(space, count).points()])
    found: list[Row] = []
    async with EdgeStore(folder, index_from=2 * count) as store:
        for where, vectors in asked.items():
            nearest = np.argpartition(-(vectors @ everything.T), 10, axis=1)[:, :10]
            right, seconds = 0, list[float]()
            for query, expected in zip(vectors, nearest, strict=True):
                at = time.perf_counter()
                hits = await store.query(space.collection, query, where=_IMAGES, limit=10)
                seconds.append(time.perf_counter() - at)
                right += len({int(hit.payload["image_id"], 16) for hit in hits} & set(expected.tolist()))
            name = f"recall@10 of the index against exact search, {count:,} x 512, asked {where}"
            times = {"query_p50_ms": percentile_ms(seconds, 50), "query_p99_ms": percentile_ms(seconds, 99)}
            detail = {**times, "filled_and_built_s": built_s}
            note = "vectors drawn in clouds, not of real pictures"
            found.append(Row(name, right / (10 * queries), 0.97, "higher", unit="", detail=detail, note=note))
    return found
