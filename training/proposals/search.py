"""Whether words find photos better when regions are searched too: by each category that is on them, "a photo of a dog", and by captions.

A right photo is found when few enough others score higher; other right ones don't count against it. What is embedded of a region
is what the model service would embed.
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

NAMED_WITHIN = 5
"""A photo with what was named is found among the first five."""
TOLD_WITHIN = 1
"""A photo that a caption tells of is found first."""
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
class Questions:
    """Texts, the rows of the photos that are right for each, and among how many of the best they should be."""

    texts: tuple[str, ...]
    right: tuple[tuple[int, ...], ...]
    within: int


def by_names(photos: Iterable[Photo]) -> Questions:
    shown: dict[str, list[int]] = {}
    for row, photo in enumerate(photos):
        for category in {thing.category for thing in photo.things}:
            shown.setdefault(category, []).append(row)
    names = sorted(shown)
    return Questions(tuple(map(_prompt, names)), tuple(tuple(shown[name]) for name in names), NAMED_WITHIN)


def by_captions(photos: Iterable[Photo]) -> Questions:
    said = [(caption, (row,)) for row, photo in enumerate(photos) for caption in photo.captions]
    return Questions(tuple(caption for caption, _ in said), tuple(right for _, right in said), TOLD_WITHIN)


def embedded(pixels: Pixels, regions: Sequence[Region], encoder: DualEncoder) -> Embedded:
    crops = [crop(pixels, Instance("", each.score, bbox(each.mask), each.mask, float(each.mask.mean()))) for each in regions]
    vectors = encoder.embed([encoder.prepare(picture) for picture in (pixels, *crops)])
    return Embedded(vectors[0], vectors[1:])


def found(asked: Questions, words: Tensor, photos: Sequence[Embedded], way: Way) -> list[NDArray[np.float64]]:
    """For each question, 1 for each right photo that is found, else 0; `words` are the embeddings of the texts."""
    scores = np.stack([_scores(photo, words, way) for photo in photos], axis=1)
    return [_found(scores[row], right, asked.within) for row, right in enumerate(asked.right)]


def _scores(photo: Embedded, words: Tensor, way: Way) -> NDArray[np.float64]:
    """(questions,). A photo without regions is known by its picture alone."""
    picture: NDArray[np.float64] = (words @ photo.picture).astype(np.float64)
    if way == "picture" or not len(photo.regions):
        return picture
    regions: NDArray[np.float64] = (words @ photo.regions.T).max(axis=1).astype(np.float64)
    if way == "regions":
        return regions
    return np.maximum(picture, regions) if way == "better" else np.asarray((picture + regions) / 2)


def _found(scores: NDArray[np.float64], right: Sequence[int], within: int) -> NDArray[np.float64]:
    wrong = np.delete(scores, list(right))
    return np.asarray([(wrong > scores[row]).sum() < within for row in right], dtype=np.float64)


def _prompt(category: str) -> str:
    return PROMPT.format(article="an" if category[0] in "aeiou" else "a", category=category)
