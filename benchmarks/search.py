"""Text search over HTTP, against what it is made of: the text tower, and the vectors."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.corpus import Corpus, stored
from benchmarks.processes import model_service, search_service
from benchmarks.questions import questions
from benchmarks.rows import Row, percentile_ms
from core.ports import Match, Where
from core.schemas import Space
from core.vectors.edge import EdgeStore
from model_service.parts import TextTower
from model_service.registry import load
from model_service.settings import ModelSettings

_IMAGES = Where(must=(Match("kind", ("image",)),))


async def rows(folder: Path, count: int, *, profile: str, models_dir: Path, queries: int = 300) -> list[Row]:
    """Idle latency, and that of a question asked before. Every question is new, so nothing of it is cached."""
    parts = load(ModelSettings(models_dir=models_dir, model_profile=profile))
    space = next(space for space in parts.spaces if space.text)
    corpus = Corpus(space, count)
    await stored(corpus, folder / "vectors")
    texts = questions(queries)
    parts_s = await _parts_alone(folder, parts.text_tower, space, texts)
    with model_service(models_dir, profile) as models, search_service(folder, models) as address:
        ask = _asker(address)
        for text in questions(30, seed=9):
            ask(text)
        whole_s = [_timed(partial(ask, text)) for text in texts]
        repeated_s = [_timed(partial(ask, texts[0])) for _ in range(queries)]
    parts_s += await _parts_alone(folder, parts.text_tower, space, texts)
    tower_s, vectors_s = zip(*parts_s, strict=True)
    alone_ms = percentile_ms([sum(one) for one in parts_s], 50)
    p50, p99 = percentile_ms(whole_s, 50), percentile_ms(whole_s, 99)
    name = f"text search over HTTP, {count:,} x {space.dim}, {profile}, idle"
    seen = {"text_tower_p50_ms": percentile_ms(tower_s, 50), "vectors_p50_ms": percentile_ms(vectors_s, 50), "p50_ms": p50}
    return [
        Row(f"{name}: p50 / (text tower + vectors)", p50 / alone_ms, 1.5, "lower", detail=seen),
        Row(f"{name}: p99 / p50", p99 / p50, 4.0, "lower", detail={"p99_ms": p99}),
        Row(f"repeated question over HTTP, {count:,}: p50", percentile_ms(repeated_s, 50), 3.0, "lower", unit="ms"),
    ]


async def _parts_alone(folder: Path, tower: TextTower, space: Space, texts: Sequence[str]) -> list[tuple[float, float]]:
    """Seconds of the tower and of the vectors, of each question: in one process, one after the other as a question needs them.

    Each alone, over and over, finds what it reads in the processor's cache, and takes a third less; no question does.
    """
    seconds = list[tuple[float, float]]()
    async with EdgeStore(folder / "vectors", index_from=10**9) as store:
        for text in texts:
            started = time.perf_counter()
            [vector] = tower.embed_texts([text])
            embedded = time.perf_counter()
            await store.query(space.collection, vector, where=_IMAGES, limit=10)
            seconds.append((embedded - started, time.perf_counter() - embedded))
    return seconds


def _asker(address: str) -> Callable[[str], None]:
    """By the standard library's client, which costs next to nothing: a better one takes as long as a part of what is measured."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)

    def ask(text: str) -> None:
        body = json.dumps({"text": text})
        connection.request("POST", "/api/v1/search-image", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        told = answer.read()
        if answer.status != 200 or b'"image_id"' not in told:  # an answer without matches is no measurement
            raise RuntimeError(told.decode())

    return ask


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
