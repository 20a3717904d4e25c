"""Where to look: whole pictures, regions, or both as one score; and what to ask by: words, a caption, an object, its photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.ways.fusion import WAYS, whole_and_best
from benchmarks.ways.photos import Library, Models, Vectors, corners
from benchmarks.ways.questions import Asked, Measure
from benchmarks.ways.tables import Compared, markdown
from benchmarks.ways.worlds import Coco, Flickr
from core.decode import Pixels
from model_service.crops import crop
from model_service.parts import Instance
from training.proposals.coco import Photo, Thing
from training.proposals.regions import bbox

SMALL, TINY = 0.03, 0.01
_SAME_BOX_IOU = 0.5


def names(coco: Coco, words: Vectors, *, most: float = 1.0) -> Asked:
    """By each category; right are photos whose largest object of it covers at most `most`, other photos with it count neither way."""
    there = coco.largest > 0
    right = there & (coco.largest < most)
    kept = right.any(1)
    return Asked(coco.library, words[kept], right[kept], (there & ~right)[kept], np.flatnonzero(kept), within=5)


def nouns(flickr: Flickr, words: Vectors) -> Asked:
    """Right are photos of which two captions or more have the noun; those of which one has it count neither way."""
    return Asked(flickr.library, words, flickr.said >= 2, flickr.said == 1, np.arange(len(words)), within=10)


def captions(library: Library, told: Sequence[Sequence[str]], models: Models, *, within: int) -> Asked:
    """`told` has the captions of each photo; right is the photo that a caption was written of."""
    own = np.repeat(np.arange(len(told)), [len(of_photo) for of_photo in told])
    right = own[:, None] == np.arange(len(told))
    queries = models.words([caption for of_photo in told for caption in of_photo])
    return Asked(library, queries, right, np.zeros_like(right), own, within)


def objects(coco: Coco) -> list[tuple[int, Thing]]:
    """The largest object of each category of each photo, with the photo's row, where other photos have the category too."""
    found = []
    for row, photo in enumerate(coco.photos):
        largest = {thing.category: thing for thing in sorted(photo.things, key=lambda thing: thing.share)}
        found += [(row, thing) for name, thing in largest.items() if (_shares(coco, name) > 0).sum() > 1]
    return found


def by_objects(coco: Coco, asking: Sequence[tuple[int, Thing]], queries: Vectors) -> Asked:
    """Each object asks for other photos with its category."""
    rows = np.asarray([row for row, _ in asking])
    own = rows[:, None] == np.arange(len(coco.photos))
    right = np.stack([_shares(coco, thing.category) > 0 for _, thing in asking]) & ~own
    return Asked(coco.library, queries, right, own, rows, within=5)


def faded(photo: Photo, thing: Thing) -> Pixels:
    """As the service crops a segment of exactly that outline."""
    return crop(photo.pixels, Instance(thing.category, 1.0, bbox(thing.mask), thing.mask, thing.share))


def boxed(photo: Photo, thing: Thing) -> Pixels:
    """As somebody draws a box around it."""
    left, top, width, height = map(int, bbox(thing.mask))
    return photo.pixels[top : top + height, left : left + width]


def kinds(coco: Coco, flickr: Flickr, models: Models) -> dict[str, Asked]:
    words = models.words(coco.categories)
    asking = objects(coco)
    outlined = models.pictures("objects-faded", lambda: (faded(coco.photos[row], thing) for row, thing in asking))
    drawn = models.pictures("objects-boxed", lambda: (boxed(coco.photos[row], thing) for row, thing in asking))
    whole = coco.library.whole[[row for row, _ in asking]]
    return {
        "names": names(coco, words),
        "of things < 3 %": names(coco, words, most=SMALL),
        "of things < 1 %": names(coco, words, most=TINY),
        "COCO captions": captions(coco.library, [photo.captions for photo in coco.photos], models, within=1),
        "Flickr8k captions": captions(flickr.library, flickr.captions, models, within=10),
        "Flickr8k nouns": nouns(flickr, models.words(flickr.nouns)),
        "an object, boxed": by_objects(coco, asking, drawn),
        "an object, outlined": by_objects(coco, asking, outlined),
        "its whole photo": by_objects(coco, asking, whole),
    }


DECIDING = ("names", "COCO captions", "Flickr8k captions", "Flickr8k nouns", "an object, boxed")
"""The kinds of question by which a fusion is chosen; the others repeat their photos."""
_SHOWN = ("images", "segments", "max(w, s)", "w + 0.5 (s − w)", "w + 0.2 (s − w)", "max(w, s − 0.06)", "z(w) + z(s)")
_RAISED = tuple(f"w + {share} max(0, s − w)" for share in (0.5, 0.6, 0.7, 0.8))


def section(coco: Coco, flickr: Flickr, models: Models, seed: int) -> list[str]:
    asked = kinds(coco, flickr, models)
    seen = [whole_and_best(each.library, each.queries) for each in asked.values()]
    compared = Compared.of(asked, {name: [fuse(*both) for both in seen] for name, fuse in WAYS.items()}, seed)
    return [
        "## Where to look, and one score from two",
        "",
        *compared.table("scope", base="images", ways=(*_SHOWN, *_RAISED)),
        *compared.held_out(bases=("images", "max(w, s)", "w + 0.5 (s − w)"), by=Measure.NEARNESS, deciding=DECIDING),
        *pointed(coco, models.words(coco.categories)),
    ]


def pointed(coco: Coco, words: Vectors) -> list[str]:
    """Whether the best region of a photo is the thing that was named, where people outlined it."""
    rows = []
    for title, least, most in (("all", 0.0, 1.0), ("3 % and more", SMALL, 1.0), ("1 to 3 %", TINY, SMALL), ("< 1 %", 0.0, TINY)):
        right = [
            _points_at(coco, words[place[0]], *place) for place in np.argwhere((coco.largest > least) & (coco.largest < most))
        ]
        rows.append([title, f"{len(right)}", f"{np.mean(right):.1%}"])
    return markdown(["largest thing of that name", "photos", f"best region has it (box IoU ≥ {_SAME_BOX_IOU})"], rows)


def _points_at(coco: Coco, word: NDArray[np.float32], category: int, row: int) -> bool:
    here = np.flatnonzero(coco.library.owner == row)
    best = here[(coco.library.regions[here] @ word).argmax()]
    photo = coco.photos[row]
    boxes = [corners(bbox(thing.mask), photo.pixels) for thing in photo.things if thing.category == coco.categories[category]]
    return max(overlap(coco.library.boxes[best], np.asarray(box)) for box in boxes) >= _SAME_BOX_IOU


def overlap(one: NDArray[np.floating], other: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    common = np.prod(np.maximum(0, np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])))
    return float(common / (np.prod(one[2:] - one[:2]) + np.prod(other[2:] - other[:2]) - common))


def _shares(coco: Coco, category: str) -> NDArray[np.float64]:
    return np.asarray(coco.largest[coco.categories.index(category)])
