"""Text search over HTTP, against what it is made of: the text tower, and the vectors."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np

from benchmarks.corpus import Corpus, stored
from benchmarks.processes import model_service, search_service
from benchmarks.rows import Row, percentile_ms
from core.ports import Match, Where
from core.vectors.edge import EdgeStore
from model_service.registry import load
from model_service.settings import ModelSettings

_WORDS = (
    "red",
    "old",
    "small",
    "dog",
    "street",
    "beach",
    "child",
    "night",
    "bicycle",
    "mountain",
    "kitchen",
    "snow",
    "two",
    "running",
)
_IMAGES = Where(must=(Match("kind", ("image",)),))


async def rows(folder: Path, count: int, *, profile: str, models_dir: Path, queries: int = 300) -> list[Row]:
    """Idle latency, and that of a question asked before. Every question is new, so nothing of it is cached."""
    tower = load(ModelSettings(models_dir=models_dir, model_profile=profile)).text_tower
    corpus = Corpus(tower.space, count)
    await stored(corpus, folder / "vectors")
    texts = _questions(queries)
    tower_s = [_timed(lambda text=text: tower.embed_texts([text])) for text in texts]
    vectors_s = await _vectors_alone(folder, corpus, queries)
    with model_service(models_dir, profile) as models, search_service(folder, models) as address:
        ask = _asker(address)
        for text in _questions(30, seed=9):
            ask(text)
        whole_s = [_timed(lambda text=text: ask(text)) for text in texts]
        repeated_s = [_timed(lambda: ask(texts[0])) for _ in range(queries)]
    tower_s += [_timed(lambda text=text: tower.embed_texts([text])) for text in texts]
    alone_ms = percentile_ms(tower_s, 50) + percentile_ms(vectors_s, 50)
    p50, p99 = percentile_ms(whole_s, 50), percentile_ms(whole_s, 99)
    name = f"text search over HTTP, {count:,} x {tower.space.dim}, {profile}, idle"
    parts = {"text_tower_p50_ms": percentile_ms(tower_s, 50), "vectors_p50_ms": percentile_ms(vectors_s, 50), "p50_ms": p50}
    return [
        Row(f"{name}: p50 / (text tower + vectors)", p50 / alone_ms, 1.5, "lower", detail=parts),
        Row(f"{name}: p99 / p50", p99 / p50, 4.0, "lower", detail={"p99_ms": p99}),
        Row(f"repeated question over HTTP, {count:,}: p50", percentile_ms(repeated_s, 50), 3.0, "lower", unit="ms"),
    ]


async def _vectors_alone(folder: Path, corpus: Corpus, queries: int) -> list[float]:
    """As the service asks them: ten matches and what tells whether there are more."""
    seconds = list[float]()
    async with EdgeStore(folder / "vectors", index_from=10**9) as store:
        for query in corpus.vectors(queries):
            started = time.perf_counter()
            await store.query(corpus.space.collection, query, where=_IMAGES, limit=10)
            seconds.append(time.perf_counter() - started)
    return seconds


def _questions(count: int, *, seed: int = 1) -> list[str]:
    """Of five words each, as captions have, no two alike."""
    random = np.random.default_rng(seed)
    return [f"{' '.join(random.choice(_WORDS, 4))} {seed}{n}" for n in range(count)]


def _asker(address: str) -> Callable[[str], None]:
    client = httpx.Client(base_url=address, timeout=30, trust_env=False)

    def ask(text: str) -> None:
        answer = client.post("/api/v1/search-image", json={"text": text})
        if answer.status_code != 200:
            raise RuntimeError(json.dumps(answer.json()))

    return ask


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
