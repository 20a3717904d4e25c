"""What a filter leaves is found by the index, whether the graph has links of their own for it or not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import qdrant_edge as edge

from core.points import UNLINKED_FIELDS
from core.ports import Match, Range, Where
from core.schemas import Vector
from core.vectors import edge_config
from core.vectors.edge_filters import edge_filter
from core.vectors.edge_payload_indexes import add_index
from core.vectors.storage import PLAIN

_COUNT, _DIM = 18_000, 160
_LEAST_PIXELS = 9_500
"""A twentieth have more."""


@dataclass(frozen=True)
class Indexed:
    """A graph over vectors as strewn as can be; `passing` by the field that a filter names."""

    engine: edge.EdgeShard
    vectors: Vector
    passing: dict[str, Vector]


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Indexed]:
    random = np.random.default_rng(7)
    vectors = random.normal(size=(_COUNT, _DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pixels, images = random.integers(0, 10_000, _COUNT), random.random(_COUNT) < 0.05
    kinds = np.where(images, "image", "segment")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(edge_config, "COMPARED_KB", 10)  # so that nine hundred vectors are not compared one by one
        engine = edge.EdgeShard.create(str(tmp_path_factory.mktemp("shard")), edge_config.shard_config(_DIM, PLAIN))
    for key in ("kind", "pixels"):
        add_index(engine, key)
    points = [
        edge.Point(n, vector.tolist(), {"pixels": int(pixels[n]), "kind": str(kinds[n])}) for n, vector in enumerate(vectors)
    ]
    engine.update(edge.UpdateOperation.upsert_points(points))
    engine.optimize()
    assert engine.info().indexed_vectors_count == _COUNT
    yield Indexed(engine, vectors, {"pixels": pixels >= _LEAST_PIXELS, "kind": images})
    engine.close()


@pytest.mark.parametrize(
    "where", [Where(must=(Match("kind", ("image",)),)), Where(must=(Range("pixels", gte=_LEAST_PIXELS),))], ids=["kind", "pixels"]
)
def test_the_nearest_of_a_twentieth_are_found(indexed: Indexed, where: Where) -> None:
    key = where.must[0].key
    assert (key in UNLINKED_FIELDS) == (key == "pixels"), "one of each"
    passing = np.flatnonzero(indexed.passing[key])
    queries = np.random.default_rng(8).normal(size=(30, _DIM)).astype(np.float32)
    nearest = np.argsort(-(queries @ indexed.vectors[passing].T), axis=1)[:, :10]
    right = 0
    for query, expected in zip(queries, nearest, strict=True):
        params = edge_config.search_params(PLAIN, where)
        request = edge.QueryRequest(limit=10, query=edge.Query.Nearest(query), filter=edge_filter(where), params=params)
        right += len({point.id for point in indexed.engine.query(request)} & set(passing[expected].tolist()))
    assert right >= 0.97 * 300
