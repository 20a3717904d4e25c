"""Whether a Qdrant Edge shard is whole, asked by a process of its own: on damaged files the engine may panic, abort or not come back.

    python -m core.vectors.edge_audit check | thorough FOLDER PARENT
    python -m core.vectors.edge_audit rescue FOLDER PARENT TARGET QUANTIZATION ON_DISK

`check` loads the shard, reads every payload, and asks the vectors and each index something that the payloads answer as well; `thorough`
reads the vectors, too. `rescue` writes the points that are whole into a new shard at TARGET, which must not exist. Prints an `Outcome`.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from pydantic import BaseModel

from core.points import PAYLOAD_INDEXES, IndexType, contradicts
from core.vectors.edge_config import shard_config
from core.vectors.edge_index import end_with_parent
from core.vectors.edge_payload_indexes import add_index
from core.vectors.storage import Quantization, VectorStorage

_PAGE = 512
_HITS = 10
_FEW = 10_000
"""So many points are always looked at thoroughly, in a second."""
_LENGTH_ERROR = 0.01
_MEMORY_BYTES = 4 * 2**30
"""And four times what lies on the disk: a damaged length must not take all of the machine's."""

_MANY_VALUES = ("image_id", "names")
"""Keywords of which each picture has its own: to count those takes as long as all the rest."""


class Outcome(BaseModel):
    """`wrong` is None for a shard that is whole; `points` are those that it holds, or that were rescued."""

    wrong: str | None = None
    points: int = 0


def main() -> None:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    end_with_parent(int(sys.argv[3]))
    occupied = sum(path.stat().st_blocks * 512 for path in folder.rglob("*"))
    limit = _MEMORY_BYTES + 4 * occupied
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if mode == "rescue":
        storage = VectorStorage(cast("Quantization", sys.argv[5]), sys.argv[6] == "True")
        outcome = Outcome(points=_rescue(_loaded_somehow(folder), Path(sys.argv[4]), storage))
    else:
        outcome = _audit(folder, thorough=mode == "thorough")
    sys.stdout.write(outcome.model_dump_json() + "\n")


def _audit(folder: Path, *, thorough: bool) -> Outcome:
    if not (folder / "edge_config.json").is_file():
        return Outcome(wrong="its configuration is gone")
    try:
        engine = edge.EdgeShard.load(str(folder))
        count = engine.count(edge.CountRequest(exact=True))
        wrong = _wrong(engine, count, thorough=thorough or count <= _FEW)
        engine.close()
    except BaseException as error:  # noqa: BLE001 - a panic is no Exception
        return Outcome(wrong=f"it cannot be read ({type(error).__name__})")
    return Outcome(wrong=wrong, points=count)


def _wrong(engine: edge.EdgeShard, count: int, *, thorough: bool) -> str | None:
    payloads: list[Mapping[str, Any]] = []
    for record in _records(engine, with_vectors=thorough):
        payload = record.payload or {}
        if not payload or contradicts(str(record.id), payload):
            return "a payload is damaged"
        if thorough and not _is_vector(record.vector):
            return "a vector is damaged"
        payloads.append({key: payload[key] for key in PAYLOAD_INDEXES if key in payload})
    if len(payloads) != count:
        return "points are missing"
    if count and not _answers(engine, count):
        return "the vectors are damaged"
    indexed = [key for key in engine.info().payload_schema if key in PAYLOAD_INDEXES]
    keys = [key for key in indexed if thorough or key not in _MANY_VALUES]
    return next((f"the index of {key} is damaged" for key in keys if not _index_agrees(engine, key, payloads)), None)


def _records(engine: edge.EdgeShard, *, with_vectors: bool) -> Iterator[edge.Record]:
    start: int | UUID | str | None = None
    while True:
        request = edge.ScrollRequest(offset=start, limit=_PAGE, filter=None, with_payload=True, with_vector=with_vectors)
        page, start = engine.scroll(request)
        yield from page
        if start is None:
            return


def _answers(engine: edge.EdgeShard, count: int) -> bool:
    """Compare with every vector, in two opposite directions: one of chance bytes lies far out in one of them, or is no number."""
    first = next(iter(_records(engine, with_vectors=True)))
    towards = np.random.default_rng(0).normal(size=len(cast("list[float]", first.vector)))
    for direction in (towards, -towards):
        exact = edge.SearchParams(exact=True)
        request = edge.QueryRequest(limit=_HITS, query=edge.Query.Nearest(direction.tolist()), params=exact)
        scores = [hit.score for hit in engine.query(request)]
        if len(scores) != min(_HITS, count) or not all(abs(score) <= 1 + _LENGTH_ERROR for score in scores):
            return False
    return True


def _index_agrees(engine: edge.EdgeShard, key: str, payloads: Sequence[Mapping[str, Any]]) -> bool:
    values = [payload[key] for payload in payloads if key in payload]
    if PAYLOAD_INDEXES[key] in {IndexType.KEYWORD, IndexType.SUBSTRING}:
        told = Counter(one for value in values for one in set(value if isinstance(value, list) else [value]))
        found = engine.facet(edge.FacetRequest(key, limit=len(told) + 1, exact=True)).hits
        return {hit.value: hit.count for hit in found if hit.count} == told  # what was deleted may be told as 0
    anything = edge.FieldCondition(key=key, range=edge.RangeFloat(gte=-sys.float_info.max))
    return engine.count(edge.CountRequest(exact=True, filter=edge.Filter(must=[anything]))) == len(values)


def _is_vector(vector: object) -> bool:
    """Finite, and of length 1, as the engine keeps them."""
    return vector is not None and abs(float(np.linalg.norm(np.asarray(vector, dtype=np.float64))) - 1) < _LENGTH_ERROR


def _loaded_somehow(folder: Path) -> edge.EdgeShard:
    """Without its journal if need be: then what was flushed is all that there is."""
    try:
        return edge.EdgeShard.load(str(folder))
    except BaseException:  # noqa: BLE001 - a panic is no Exception
        (folder / "wal").rename(folder / "wal.damaged")
        return edge.EdgeShard.load(str(folder))


def _rescue(engine: edge.EdgeShard, target: Path, storage: VectorStorage) -> int:
    rescued: edge.EdgeShard | None = None
    kept = 0
    for page in _readable(engine):
        whole = [
            edge.Point(one.id, one.vector, one.payload)
            for one in page
            if one.vector is not None and one.payload and not contradicts(str(one.id), one.payload) and _is_vector(one.vector)
        ]
        if whole and rescued is None:
            rescued = edge.EdgeShard.create(str(target), shard_config(len(cast("list[float]", whole[0].vector)), storage))
            for key in PAYLOAD_INDEXES:
                add_index(rescued, key)
        if rescued is not None and whole:
            rescued.update(edge.UpdateOperation.upsert_points(whole))
            kept += len(whole)
    if rescued is not None:
        rescued.flush()
        rescued.close()
    return kept


def _readable(engine: edge.EdgeShard) -> Iterator[list[edge.Record]]:
    """The points by pages, without those that cannot be read."""
    start: int | UUID | str | None = None
    while True:
        request = edge.ScrollRequest(offset=start, limit=_PAGE // 8, filter=None, with_payload=False, with_vector=False)
        page, start = engine.scroll(request)
        yield _read(engine, [one.id for one in page])
        if start is None:
            return


def _read(engine: edge.EdgeShard, ids: list[int | UUID | str]) -> list[edge.Record]:
    """Where one of them fails, each half by itself."""
    try:
        return engine.retrieve(ids, True, True)
    except BaseException:  # noqa: BLE001 - a panic is no Exception
        half = len(ids) // 2
        return [] if len(ids) <= 1 else [*_read(engine, ids[:half]), *_read(engine, ids[half:])]


if __name__ == "__main__":
    main()
