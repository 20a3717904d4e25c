"""Questions of two terms: a picture and a word, a word or a picture and a word that is not wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

import numpy as np

from benchmarks.ways.fusion import SERVED, Fusion, images, whole_and_best
from benchmarks.ways.photos import Library, Models, Rows, Vectors
from benchmarks.ways.phrasing import unit
from benchmarks.ways.questions import Asked, Flags, Measure, Scores
from benchmarks.ways.tables import Compared
from benchmarks.ways.worlds import Coco, Flickr

_WEIGHTS_ADDED = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 8.0)
_WEIGHTS_TAKEN = (0.0, 0.1, 0.25, 0.4, 0.5, 0.75, 1.0)
_PHOTOS_A_PAIR = 3


@dataclass(frozen=True, slots=True)
class Known:
    """What stands on photos: `there` and `unsure` (words, photos); `vectors` (words, dim) are the words."""

    library: Library
    there: Flags
    unsure: Flags
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Composed:
    """`asked.queries` are the first terms, `second` (questions, dim) the others; `has_second` (questions, photos)."""

    asked: Asked
    second: Vectors
    has_second: Flags

    def scores(self, weight: float, fuse: Fusion) -> Scores:
        return summed(self.asked, self.second, weight, fuse)


def summed(asked: Asked, second: Vectors, weight: float, fuse: Fusion) -> Scores:
    return fuse(*whole_and_best(asked.library, unit(asked.queries + np.float32(weight) * second)))


def picture_and_word(known: Known, *, least: int, seed: int) -> Composed:
    """A picture has A and lacks B, the word is B: right are the others with both, `least` or more of them."""
    there = known.there
    asking = {
        (first, second): there[first] & ~there[second] & ~known.unsure[second]
        for first, second in permutations(range(len(there)), 2)
        if (there[first] & there[second]).sum() >= least
    }
    photo, first, second = _drawn(asking, seed)
    return _by_pictures(known, photo, (first, second), there[first] & there[second])


def picture_without(known: Known, *, least: int, seed: int) -> Composed:
    """A picture has A and B, the word B is not wanted: right are photos with A and without B, `least` or more of them."""
    there = known.there
    asking = {
        (first, second): there[first] & there[second]
        for first, second in permutations(range(len(there)), 2)
        if (there[first] & ~there[second] & ~known.unsure[second]).sum() >= least
    }
    photo, first, second = _drawn(asking, seed)
    return _by_pictures(known, photo, (first, second), there[first] & ~there[second])


def word_without(known: Known, *, least: int) -> Composed:
    """The word A, the word B is not wanted: right are photos with A and without B. `least` or more have A alone, and as many both."""
    there = known.there
    first, second = np.asarray(
        [
            (first, second)
            for first, second in permutations(range(len(there)), 2)
            if min((there[first] & there[second]).sum(), (there[first] & ~there[second] & ~known.unsure[second]).sum()) >= least
        ]
    ).T
    return _composed(known, known.vectors[first], (first, second), there[first] & ~there[second], known.unsure[first])


def section(coco: Coco, flickr: Flickr, models: Models, seed: int) -> list[str]:
    """Weights of words beside a picture, and of words that are not wanted."""
    things = np.asarray([name != "person" for name in coco.categories])  # people stand beside everything
    there = coco.largest[things] > 0
    of_coco = Known(coco.library, there, np.zeros_like(there), models.words(coco.categories)[things])
    of_flickr = Known(flickr.library, flickr.said >= 2, flickr.said == 1, models.words(flickr.nouns))
    both, alone = picture_and_word(of_coco, least=2, seed=seed), word_without(of_coco, least=2)
    beside = {
        "COCO": (both, images),
        "the same, both": (both, SERVED),
        "Flickr8k": (picture_and_word(of_flickr, least=3, seed=seed), images),
    }
    unwanted = {
        "COCO names": (alone, images),
        "the same, both": (alone, SERVED),
        "Flickr8k nouns": (word_without(of_flickr, least=3), images),
        "COCO photos": (picture_without(of_coco, least=2, seed=seed), images),
        "Flickr8k photos": (picture_without(of_flickr, least=3, seed=seed), images),
    }
    added = _compared(beside, _WEIGHTS_ADDED, seed)
    taken = _compared(unwanted, [-weight for weight in _WEIGHTS_TAKEN], seed)
    still = {
        kind: (replace(each, asked=replace(each.asked, right=each.has_second)), fuse) for kind, (each, fuse) in unwanted.items()
    }
    of_ten = Measure.OF_TEN
    return [
        "## A picture and words",
        "",
        *added.table("weight of the words", base="1"),
        *added.held_out(bases=("1",), by=Measure.NEARNESS),
        "## Words that are not wanted",
        "",
        *taken.table("their weight; right of the first ten", base="0.5", shown=of_ten),
        *taken.held_out(bases=("0.5", "0"), by=of_ten, shown=of_ten),
        *_compared(still, [-weight for weight in _WEIGHTS_TAKEN], seed).table(
            "unwanted of the first ten", base="0.5", shown=of_ten
        ),
    ]


def _compared(of: Mapping[str, tuple[Composed, Fusion]], weights: Sequence[float], seed: int) -> Compared:
    scores = {f"{abs(weight):g}": [each.scores(weight, fuse) for each, fuse in of.values()] for weight in weights}
    return Compared.of({kind: each.asked for kind, (each, _) in of.items()}, scores, seed)


def _drawn(asking: Mapping[tuple[int, int], Flags], seed: int) -> Rows:
    """(3, questions): photo, first and second word; of each pair up to three photos, by lot."""
    chance = np.random.default_rng(seed)
    triples = [
        (photo, *pair) for pair, photos in asking.items() for photo in chance.permutation(np.flatnonzero(photos))[:_PHOTOS_A_PAIR]
    ]
    return np.asarray(triples, dtype=np.int64).T


def _by_pictures(known: Known, photo: Rows, pair: tuple[Rows, Rows], right: Flags) -> Composed:
    own = photo[:, None] == np.arange(len(known.library))
    return _composed(known, known.library.whole[photo], pair, right, known.unsure[pair[0]] | own)


def _composed(known: Known, queries: Vectors, pair: tuple[Rows, Rows], right: Flags, ignored: Flags) -> Composed:
    first, second = pair
    ignored = ignored | (known.there[first] & known.unsure[second])
    asked = Asked(known.library, queries, right & ~ignored, ignored, first * len(known.there) + second, within=10)
    return Composed(asked, known.vectors[second], known.there[second])
