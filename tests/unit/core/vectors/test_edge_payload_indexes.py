"""What searches filter by is mapped from files, so that a large shard is loaded in little time, of earlier releases as well."""

from __future__ import annotations

from pathlib import Path

import qdrant_edge as edge

from core.points import PAYLOAD_INDEXES, UNLINKED_FIELDS
from core.ports import Match, Range, Where
from core.vectors.edge_config import shard_config
from core.vectors.edge_filters import edge_filter
from core.vectors.edge_payload_indexes import add_index, missing_indexes, renew_indexes
from core.vectors.storage import PLAIN

_EARLIER = {
    "kind": edge.PayloadSchemaType.Keyword,
    "names": edge.KeywordIndexParams(prefix=True),
    "width": edge.PayloadSchemaType.Integer,
    "taken_at": edge.PayloadSchemaType.Float,
}


def shard(folder: Path) -> edge.EdgeShard:
    folder.mkdir()
    return edge.EdgeShard.create(str(folder), shard_config(2, PLAIN))


def mapped(engine: edge.EdgeShard) -> set[str]:
    found = engine.info().payload_schema
    return {key for key, index in found.items() if getattr(index.params, "memory", None) == edge.Memory.Cold}


def linked(engine: edge.EdgeShard) -> set[str]:
    found = engine.info().payload_schema
    return {key for key, index in found.items() if getattr(index.params, "enable_hnsw", None) is not False}


def test_every_index_is_mapped_but_the_one_that_every_search_reads(tmp_path: Path) -> None:
    engine = shard(tmp_path / "shard")
    assert missing_indexes(engine) == list(PAYLOAD_INDEXES)
    for key in PAYLOAD_INDEXES:
        add_index(engine, key)
    assert missing_indexes(engine) == []
    assert mapped(engine) == set(PAYLOAD_INDEXES) - {"kind"}
    assert linked(engine) == set(PAYLOAD_INDEXES) - UNLINKED_FIELDS


def test_indexes_that_an_earlier_release_kept_in_memory_are_mapped_and_find_the_same(tmp_path: Path) -> None:
    engine = shard(tmp_path / "shard")
    for key, params in _EARLIER.items():
        engine.update(edge.UpdateOperation.create_field_index(key, params))
    points = [
        edge.Point(n, [1.0, n / 9], {"kind": "image", "names": [f"photo-{n}.jpg"], "width": n, "taken_at": n / 2})
        for n in range(9)
    ]
    engine.update(edge.UpdateOperation.upsert_points(points))
    where = Where(must=(Match("kind", ("image",)), Range("width", gte=3), Range("taken_at", lte=3.0)))
    counting = edge.CountRequest(exact=True, filter=edge_filter(where))
    assert engine.count(counting) == 4
    assert mapped(engine) == set()
    assert linked(engine) == set(_EARLIER)

    renew_indexes(engine)
    assert mapped(engine) == {"names", "width", "taken_at"}
    assert linked(engine) == {"kind"}
    assert engine.count(counting) == 4

    engine.flush()
    engine.close()
    again = edge.EdgeShard.load(str(tmp_path / "shard"))
    assert again.count(counting) == 4
    renew_indexes(again)
    assert mapped(again) == {"names", "width", "taken_at"}
