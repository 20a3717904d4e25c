"""Whether a template around the words helps: names, nouns, labels, captions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.ways.fusion import SERVED, images, whole_and_best
from benchmarks.ways.photos import Models, Vectors
from benchmarks.ways.questions import Asked, Measure
from benchmarks.ways.scopes import captions, names, nouns
from benchmarks.ways.tables import Compared
from benchmarks.ways.worlds import Clothes, Coco, Flickr

PLAIN = "{}"
TEMPLATES: dict[str, tuple[str, ...]] = {
    PLAIN: (PLAIN,),
    "a {}": ("a {}",),
    "a photo of {}": ("a photo of {}",),
    "a photo of a {}": ("a photo of a {}",),
    "a picture of {}": ("a picture of {}",),
    "there is a {} in the scene": ("there is a {} in the scene",),
    "mean of {} and a photo of {}": (PLAIN, "a photo of {}"),
    "mean of four": (PLAIN, "a photo of {}", "a picture of {}", "there is a {} in the scene"),
}
"""More than one: their vectors' sum."""


def said(texts: Sequence[str], template: str, models: Models) -> Vectors:
    return unit(np.sum([models.words([form.replace(PLAIN, text) for text in texts]) for form in TEMPLATES[template]], axis=0))


def unit(vectors: Vectors) -> Vectors:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def by_labels(clothes: Clothes, queries: Vectors) -> Asked:
    right = np.arange(len(clothes.names))[:, None] == clothes.labels
    return Asked(clothes.library, queries, right, np.zeros_like(right), np.arange(len(right)), within=10)


def section(coco: Coco, flickr: Flickr, clothes: Clothes, models: Models, seed: int) -> list[str]:
    sentences = [caption for of_photo in flickr.captions for caption in of_photo]
    plain = {
        "COCO names": (coco.categories, names(coco, models.words(coco.categories))),
        "the same, both": (coco.categories, names(coco, models.words(coco.categories))),
        "Flickr8k nouns": (flickr.nouns, nouns(flickr, models.words(flickr.nouns))),
        "clothing labels": (clothes.names, by_labels(clothes, models.words(clothes.names))),
        "Flickr8k captions": (sentences, captions(flickr.library, flickr.captions, models, within=10)),
    }
    asked = {kind: each for kind, (_, each) in plain.items()}
    scores = {
        template: [
            (SERVED if kind == "the same, both" else images)(*whole_and_best(each.library, said(texts, template, models)))
            for kind, (texts, each) in plain.items()
        ]
        for template in TEMPLATES
    }
    compared = Compared.of(asked, scores, seed)
    return [
        "## Templates",
        "",
        *compared.table("template", base=PLAIN),
        *compared.held_out(bases=(PLAIN,), by=Measure.NEARNESS),
    ]
