"""Masks alone, by the segmenter that a hub would be asked for: its true architecture, with random weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import photos
from benchmarks.checkpoints import random_yoloe
from benchmarks.rows import Row
from core.decode import Pixels
from core.schemas import SegmentMode
from model_service.registry import load
from model_service.settings import ModelSettings

_LEARNED_FROM = 4


def rows(folder: Path, *, count: int) -> list[Row]:
    """`predict` of `ultralytics`, ours, `predict` again. Random masks do not survive rounding, so that ours computes in float32."""
    photos.write(folder / "pictures", count)
    pictures = [Image.open(file).convert("RGB") for file in sorted((folder / "pictures").iterdir())]
    checkpoint = folder / "models" / "yoloe-11s-seg-pf.pt"
    random_yoloe(checkpoint, pictures[:_LEARNED_FROM])
    settings = ModelSettings(models_dir=checkpoint.parent, model_profile="starter", segmenter=checkpoint.name)
    segmenter = load(settings).segmenter
    if segmenter is None:
        raise RuntimeError("the checkpoint does not load")
    predict = _naive(checkpoint)
    pixels = [np.asarray(picture) for picture in pictures]
    naive = [_per_s(pictures, predict, threads=1)]
    ours = _per_s(pixels, lambda one: segmenter.segment([one], SegmentMode.STANDARD), threads=segmenter.at_once)
    naive.append(_per_s(pictures, predict, threads=1))
    rate = 2 / sum(1 / one for one in naive)
    detail = {"ours_per_s": ours, "naive_per_s": rate, "precision": segmenter.card.precision, "photos": count}
    name = "segmentation alone, YOLOE-11s without prompts (random weights): over naive"
    return [Row(name, ours / rate, 4.0, "higher", detail=detail, note="with real weights int8 is tried first")]


def _per_s(pictures: list[Image.Image] | list[Pixels], work: Callable[..., object], *, threads: int) -> float:
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, pictures[: 2 * threads]))
        started = time.perf_counter()
        list(pool.map(work, pictures))
        return len(pictures) / (time.perf_counter() - started)


def _naive(checkpoint: Path) -> Callable[[Image.Image], object]:
    import ultralytics  # noqa: PLC0415 - takes seconds

    model = ultralytics.YOLOE(checkpoint)
    return lambda picture: model.predict(picture, verbose=False, retina_masks=True)
