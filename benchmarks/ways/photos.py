"""The photos that are asked for, as the model service sees them: vectors of the whole and of each region, kept from one run to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from core.decode import DecodeLimits, Pixels, decode
from core.schemas import BBox, SegmentMode
from model_service import registry
from model_service.crops import WORKING_SIDE, crop, working_copy
from model_service.parts import Parts
from model_service.settings import ModelSettings
from training.evaluation.embedding import embed_texts

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Library:
    """`whole` (n, dim); `regions` (m, dim), as the service stores them, of the photos whose rows are `owner` (m,).

    `boxes` (m, 4) are left, top, right, bottom as parts of the picture's sides.
    """

    whole: Vectors
    regions: Vectors
    owner: Rows
    boxes: Vectors

    def __len__(self) -> int:
        return len(self.whole)


class Models:
    """`starter` with one segmenter, on one thread. What it was asked once lies in `kept` and is not asked again."""

    def __init__(self, yolo: Path, kept: Path) -> None:
        settings = ModelSettings(models_dir=kept, model_profile="starter", segmenter=str(yolo.resolve()), model_threads=1)
        self._parts: Parts = registry.load(settings)
        if self._parts.segmenter is None:
            raise FileNotFoundError(f"{yolo} is no segmenter: {self._parts.notice}")
        self._kept = kept / self._parts.fingerprint
        self._kept.mkdir(parents=True, exist_ok=True)

    def library(self, name: str, photos: Sequence[bytes], *, segments: bool = True) -> Library:
        """Analyse each photo as ingestion does."""
        return Library(**self._once(f"{name}-{len(photos)}", lambda: self._analysed(photos, segments=segments)))

    def pictures(self, name: str, pictures: Callable[[], Iterable[Pixels]]) -> Vectors:
        """(n, dim), each as a whole; `name` stands for these very pictures."""
        return self._once(name, lambda: {"whole": self._embedded(pictures())})["whole"]

    def words(self, texts: Sequence[str]) -> Vectors:
        """(n, dim)."""
        name = sha256("\n".join(texts).encode()).hexdigest()[:16]
        return self._once(f"words-{name}", lambda: {"words": embed_texts(self._parts.text_tower, texts, shown="texts")})["words"]

    def _once(self, name: str, made: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        path = self._kept / f"{name}.npz"
        if not path.is_file():
            partial = path.with_suffix(".partial.npz")
            np.savez(partial, **made())
            partial.replace(path)
        with np.load(path) as stored:
            return dict(stored)

    def _analysed(self, photos: Sequence[bytes], *, segments: bool) -> dict[str, Any]:
        segmenter = self._parts.segmenter
        whole, regions, owner, boxes = list[Vectors](), list[Vectors](), list[int](), list[list[float]]()
        for row, photo in enumerate(tqdm(photos, unit="photo", disable=None)):
            pixels = pixels_of(photo)
            found = segmenter.segment([pixels], SegmentMode.STANDARD)[0] if segments and segmenter else []
            vectors = self._embedded([pixels, *(crop(pixels, each) for each in found)])
            whole.append(vectors[:1])
            regions.append(vectors[1:])
            owner += [row] * len(found)
            boxes += [corners(each.bbox, pixels) for each in found]
        return {
            "whole": np.concatenate(whole),
            "regions": np.concatenate(regions),
            "owner": np.asarray(owner, dtype=np.int64),
            "boxes": np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        }

    def _embedded(self, pictures: Iterable[Pixels]) -> Vectors:
        tower = self._parts.image_towers[0]
        prepared = map(tower.prepare, pictures)
        return np.concatenate([tower.embed(batch) for batch in iter(lambda: list(islice(prepared, _BATCH)), [])])


def pixels_of(photo: bytes) -> Pixels:
    """What the service's towers and its segmenter see of a file."""
    return working_copy(decode(photo, DecodeLimits(), min_side=WORKING_SIDE // 2).pixels)


def corners(box: BBox, pixels: Pixels) -> list[float]:
    """As parts of the picture's sides."""
    height, width = pixels.shape[:2]
    left, top, across, down = box
    return [left / width, top / height, (left + across) / width, (top + down) / height]
