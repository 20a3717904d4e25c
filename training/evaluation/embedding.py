"""Vectors as the model service would answer them: its registry loads, its decoding, preparing and towers are used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from core.decode import DecodeLimits, Pixels, decode
from core.errors import ImageRejected, NoModel
from model_service import registry
from model_service.crops import WORKING_SIDE, working_copy
from model_service.parts import ImageTower, Parts, Tensor, TextTower
from model_service.settings import ModelSettings
from training.evaluation.options import EvaluateOptions
from training.pictures import UnusablePictures

BATCH = 32


@dataclass(frozen=True, slots=True)
class Skipped:
    """A picture that could not be read, and why."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class EmbeddedPictures:
    """`vectors[t]` are tower t's embeddings (n, dim) of those of the given paths that `rows` names."""

    vectors: tuple[Tensor, ...]
    rows: tuple[int, ...]
    skipped: tuple[Skipped, ...]


def load(options: EvaluateOptions) -> Parts:
    """The profile without a segmenter, unless it names its own. Raises NoModel when it is not on this machine."""
    settings = ModelSettings(
        models_dir=options.models_dir,
        model_profile=options.profile,
        segmenter="none",
        model_device=options.device,
        model_threads=options.threads,
    )
    with _hub_switched_off():
        try:
            return registry.load(settings)
        except NoModel as error:  # its last sentence is about a service, which looks for weights again
            raise NoModel(f"{options.profile} cannot be measured, and nothing is downloaded for it. {error.__cause__}") from error


def embed_pictures(towers: Sequence[ImageTower], paths: Sequence[Path], *, threads: int, shown: str) -> EmbeddedPictures:
    """Each picture is decoded once for all towers. `shown` names the progress bar. Raises UnusablePictures when none can be read."""
    parts: list[list[Tensor]] = [[] for _ in towers]
    rows, skipped = list[int](), list[Skipped]()
    with (
        ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool,
        tqdm(total=len(paths), desc=shown, unit="picture", disable=None) as progress,
    ):
        for batch in _batches(len(paths)):
            read = list(pool.map(_pixels, [paths[row] for row in batch]))
            skipped += [found for found in read if isinstance(found, Skipped)]
            pixels = {row: found for row, found in zip(batch, read, strict=True) if not isinstance(found, Skipped)}
            rows += pixels
            for tower, vectors in zip(towers, parts, strict=True):
                if pixels:
                    vectors.append(tower.embed(list(pool.map(tower.prepare, pixels.values()))))
            progress.update(len(batch))
    if not rows:
        raise UnusablePictures(
            f"none of the {len(paths)} pictures can be read, {skipped[0].path} is the first: {skipped[0].reason}"
        )
    return EmbeddedPictures(tuple(map(np.concatenate, parts)), tuple(rows), tuple(skipped))


def embed_texts(tower: TextTower, texts: Sequence[str], *, shown: str) -> Tensor:
    """(n, dim) in input order; texts of about the same length share a batch, since the longest sets its cost."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    vectors = np.empty((len(texts), tower.space.dim), dtype=np.float32)
    with tqdm(total=len(texts), desc=shown, unit="text", disable=None) as progress:
        for batch in _batches(len(order)):
            rows = [order[place] for place in batch]
            vectors[rows] = tower.embed_texts([texts[row] for row in rows])
            progress.update(len(rows))
    return vectors


def _batches(count: int) -> Iterator[range]:
    return (range(start, min(start + BATCH, count)) for start in range(0, count, BATCH))


def _pixels(path: Path) -> Pixels | Skipped:
    """What the service's towers see of a file."""
    try:
        decoded = decode(path.read_bytes(), DecodeLimits(), min_side=WORKING_SIDE // 2)
    except (OSError, ImageRejected) as error:
        return Skipped(path, str(error))
    return working_copy(decoded.pixels)


@contextmanager
def _hub_switched_off() -> Iterator[None]:
    """Half a gigabyte is nothing to fetch while measuring; the service's own switch says so to its registry."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before
