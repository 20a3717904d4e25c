"""Whether words find photos better when regions are searched too: each category of the photos is asked for, "a photo of a dog".

A photo with the thing is found when at most `FOUND_WITHIN - 1` photos without it score higher; other photos with it don't count
against it, since they are right too. What is embedded of a region is what the model service would embed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.decode import Pixels
from model_service.crops import crop
from model_service.parts import Instance, Tensor
from model_service.registry import DualEncoder
from training.proposals.coco import Photo
from training.proposals.regions import Region, bbox

FOUND_WITHIN = 5
PROMPT = "a photo of {article} {category}"

Way = Literal["picture", "regions", "better", "mean"]
"""By the picture alone, its best region alone, the better of both (the service's scope `both`), or the mean of both."""
WAYS: tuple[Way, ...] = get_args(Way)


@dataclass(frozen=True, slots=True)
class Embedded:
    """One photo: its embedding (dim,), and those of its regions (regions, dim), best first."""

    picture: Tensor
    regions: Tensor


@dataclass(frozen=True, slots=True)
class Asked:
    """One category; `photos` are the rows of the photos that show it, `shares` the largest part of each that one such thing covers."""

    words: str
    photos: tuple[int, ...]
    shares: tuple[float, ...]


def questions(photos: Iterable[Photo]) -> list[Asked]:
    largest: dict[str, dict[int, float]] = {}
    for row, photo in enumerate(photos):
        for thing in photo.things:
            shown = largest.setdefault(thing.category, {})
            shown[row] = max(shown.get(row, 0.0), thing.share)
    return [Asked(_prompt(name), tuple(shown), tuple(shown.values())) for name, shown in sorted(largest.items())]


def embedded(pixels: Pixels, regions: Sequence[Region], encoder: DualEncoder) -> Embedded:
    crops = [crop(pixels, Instance("", each.score, bbox(each.mask), each.mask, float(each.mask.mean()))) for each in regions]
    vectors = encoder.embed([encoder.prepare(picture) for picture in (pixels, *crops)])
    return Embedded(vectors[0], vectors[1:])


def found(asked: Sequence[Asked], photos: Sequence[Embedded], encoder: DualEncoder, way: Way) -> list[NDArray[np.bool_]]:
    """For each question, whether each photo that shows the thing is found."""
    words = encoder.embed_texts([each.words for each in asked])
    scores = np.stack([_scores(photo, words, way) for photo in photos], axis=1)
    return [_found(scores[row], each.photos) for row, each in enumerate(asked)]


def _scores(photo: Embedded, words: Tensor, way: Way) -> NDArray[np.float64]:
    """(questions,). A photo without regions is known by its picture alone."""
    picture: NDArray[np.float64] = (words @ photo.picture).astype(np.float64)
    if way == "picture" or not len(photo.regions):
        return picture
    regions: NDArray[np.float64] = (words @ photo.regions.T).max(axis=1).astype(np.float64)
    if way == "regions":
        return regions
    return np.maximum(picture, regions) if way == "better" else np.asarray((picture + regions) / 2)


def _found(scores: NDArray[np.float64], right: Sequence[int]) -> NDArray[np.bool_]:
    wrong = np.delete(scores, list(right))
    return np.asarray([(wrong > scores[row]).sum() < FOUND_WITHIN for row in right], dtype=np.bool_)


def _prompt(category: str) -> str:
    return PROMPT.format(article="an" if category[0] in "aeiou" else "a", category=category)
