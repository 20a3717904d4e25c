"""From files to *indexed*, against the loop that one would write first, and against the models alone."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import photos
from benchmarks.questions import questions
from benchmarks.rows import Row, percentile_ms
from core.decode import DecodeLimits, decode
from core.schemas import SegmentMode
from model_service.crops import WORKING_SIDE, crop, working_copy
from model_service.parts import Parts
from model_service.registry import load
from model_service.settings import ModelSettings
from tests.e2e.product import Product, wait_for

_NAIVE_PHOTOS = 40
_BATCH = 16
_QUERIES_PER_S = 5
_WARM_UP = 0.2
"""Share of the pictures before the clock starts: a folder that is copied in is let settle first, and caches fill."""

_ASKED_EVERY_S = 0.1
"""How often the product is asked how far it is: fifty times a second took a fifteenth of what two cores do."""


@dataclass(frozen=True, slots=True)
class Case:
    """`naive` is the loop: one file to its vectors."""

    name: str
    goal: float
    naive: Callable[[Path], object]
    environment: dict[str, str]
    segments: bool


@dataclass(frozen=True, slots=True)
class Ingested:
    """Pictures a second while nothing is asked, and while somebody asks; and how long each answer took then, in seconds."""

    alone: float
    asked: float
    answers_s: list[float]


def rows(folder: Path, case: Case, *, models_dir: Path, count: int) -> list[Row]:
    """Naive, product, models alone, naive again: what the machine does beside it falls on each alike."""
    pictures = folder / "pictures"
    real = photos.write(pictures, 2 * count)
    files = sorted(pictures.iterdir())
    case.naive(files[0])
    naive = [loop_rate(files[:_NAIVE_PHOTOS], case.naive)]
    ingested = _ingested(folder, files, models_dir, case.environment)
    settings = ModelSettings.model_validate({"models_dir": models_dir, **{k.lower(): v for k, v in case.environment.items()}})
    alone = _models_alone_per_s(load(settings), files[:128], segments=case.segments)
    naive.append(loop_rate(files[_NAIVE_PHOTOS : 2 * _NAIVE_PHOTOS], case.naive))
    rate = 2 / sum(1 / one for one in naive)
    seen = {"ingested_per_s": ingested.alone, "naive_per_s": rate, "models_alone_per_s": alone, "photos": count}
    source = "photos enlarged to 0.5 to 1.7 megapixels" if real else "drawn pictures of 0.5 to 1.7 megapixels"
    found = [Row(f"ingestion, {case.name}: over naive", ingested.alone / rate, case.goal, "higher", detail=seen, note=source)]
    if not case.segments:
        p95 = percentile_ms(ingested.answers_s, 95)
        told = {"p50_ms": percentile_ms(ingested.answers_s, 50), "questions": len(ingested.answers_s)}
        found += [
            Row(f"ingestion, {case.name}: of the models alone", ingested.alone / alone, 0.85, "higher"),
            Row(f"text search while that is ingested, {_QUERIES_PER_S} a second: p95", p95, 100.0, "lower", "ms", told),
            Row(
                "ingestion then, of its own rate",
                ingested.asked / ingested.alone,
                0.7,
                "higher",
                detail={"per_s": ingested.asked},
            ),
        ]
    return found


def loop_rate(files: list[Path], work: Callable[[Path], object]) -> float:
    """Pictures a second."""
    started = time.perf_counter()
    for file in files:
        work(file)
    return len(files) / (time.perf_counter() - started)


def _ingested(folder: Path, files: list[Path], models_dir: Path, environment: dict[str, str]) -> Ingested:
    """By `make run`'s process, of folders that are moved in at once: half of the files, then the others while somebody asks."""
    half = len(files) // 2
    with Product(folder / "product", models_dir=models_dir, environment=environment) as product:
        product.start_and_wait(timeout_s=600)
        alone = ingestion_rate(product, files[:half], before=0)
        with _asking(product) as answers_s:
            asked = ingestion_rate(product, files[half:], before=half)
        product.interrupt(timeout_s=30)
    return Ingested(alone, asked, answers_s)


def ingestion_rate(product: Product, files: list[Path], *, before: int) -> float:
    """Pictures a second, from when a fifth of them is indexed; `before` says how many are indexed already."""
    place = product.root / f"moved-in-{before}"
    place.mkdir()
    for file in files:
        shutil.copy(file, place)
    place.rename(product.images / place.name)
    start, end = before + _WARM_UP * len(files), before + len(files)
    first, first_at = wait_for("the first pictures", lambda: _indexed_from(product, start), timeout_s=600, every_s=_ASKED_EVERY_S)
    last, last_at = wait_for("all pictures", lambda: _indexed_from(product, end), timeout_s=1800, every_s=_ASKED_EVERY_S)
    return float((last - first) / (last_at - first_at))


@contextmanager
def _asking(product: Product) -> Iterator[list[float]]:
    """Ask by words all the time, at a fixed rate whatever the answers take. Seconds of each answer."""
    ended, seconds, texts = threading.Event(), list[float](), questions(1000)

    def ask(n: int) -> None:
        started = time.perf_counter()
        answer = product.http.post("/api/v1/search-image", json={"text": texts[n % len(texts)]})
        if answer.status_code == 200:
            seconds.append(time.perf_counter() - started)

    def keep_asking() -> None:
        with ThreadPoolExecutor(8) as pool:
            n = 0
            while not ended.wait(1 / _QUERIES_PER_S):
                n += 1
                pool.submit(ask, n)

    thread = threading.Thread(target=keep_asking)
    thread.start()
    try:
        yield seconds
    finally:
        ended.set()
        thread.join()


def _indexed_from(product: Product, count: float) -> tuple[int, float] | None:
    indexed: int = product.http.get("/api/v1/status").json()["images"]["indexed"]
    return (indexed, time.perf_counter()) if indexed >= count else None


def _models_alone_per_s(parts: Parts, files: list[Path], *, segments: bool) -> float:
    """Prepared inputs in batches of sixteen, those of segments too: no decoding, no HTTP, nothing cropped or stored."""
    limits = DecodeLimits(2**28, 2**28)
    pixels = [working_copy(decode(file.read_bytes(), limits, min_side=WORKING_SIDE // 2).pixels) for file in files]
    segmenter = parts.segmenter if segments else None
    looked_at = pixels
    if segmenter is not None:
        found = [(one, instance) for one in pixels for instance in segmenter.segment([one], SegmentMode.STANDARD)[0]]
        looked_at = pixels + [crop(one, instance) for one, instance in found]
    work: list[tuple[int, Callable[[Any], object], list[Any]]] = []
    for tower in parts.image_towers:
        inputs = [tower.prepare(one) for one in looked_at]
        work.append((tower.at_once, tower.embed, [inputs[start : start + _BATCH] for start in range(0, len(inputs), _BATCH)]))
    if segmenter is not None:
        work.append((segmenter.at_once, lambda one: segmenter.segment([one], SegmentMode.STANDARD), pixels))
    seconds = 0.0
    for at_once, call, batches in work:
        with ThreadPoolExecutor(at_once) as threads:
            list(threads.map(call, batches[:1] * 2 * at_once))
            started = time.perf_counter()
            list(threads.map(call, batches))
            seconds += time.perf_counter() - started
    return len(files) / seconds


def naive_clip(checkpoint: Path) -> Callable[[Path], object]:
    """As the model's own page shows it: `transformers` and `torch`, full decoding, a picture at a time."""
    import torch  # noqa: PLC0415 - takes seconds
    from transformers import CLIPImageProcessor, CLIPModel  # noqa: PLC0415

    model = CLIPModel.from_pretrained(checkpoint).eval()
    processor = CLIPImageProcessor.from_pretrained(checkpoint)

    def embed(file: Path) -> object:
        inputs = processor(images=Image.open(file).convert("RGB"), return_tensors="pt")
        with torch.no_grad():
            features = model.visual_projection(model.vision_model(**inputs).pooler_output)
        return np.asarray(features / features.norm())

    return embed


def naive_clip_and_yolo(checkpoint: Path, weights: Path) -> Callable[[Path], object]:
    """`predict` of `ultralytics` on the file, then each crop and the whole through CLIP, one after the other."""
    import torch  # noqa: PLC0415
    import ultralytics  # noqa: PLC0415
    from transformers import CLIPImageProcessor, CLIPModel  # noqa: PLC0415

    model, yolo = CLIPModel.from_pretrained(checkpoint).eval(), ultralytics.YOLO(weights)
    processor = CLIPImageProcessor.from_pretrained(checkpoint)

    def embed(file: Path) -> object:
        picture = Image.open(file).convert("RGB")
        (found,) = yolo.predict(picture, verbose=False, retina_masks=True)
        crops = [picture.crop(tuple(box)) for box in found.boxes.xyxy.tolist()]
        with torch.no_grad():
            return [model.vision_model(**processor(images=one, return_tensors="pt")).pooler_output for one in (picture, *crops)]

    return embed
