"""One step's batch, drawn by chance, and the terms of its loss."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.starter.features import Cache
from training.starter.losses import contrastive, keep_classes, keep_neighbours, likeness, painted, soft_contrastive
from training.starter.texts import Words, prompt, synonym
from training.starter.towers import Original, Starter, as_batch

ANCHORED_CAPTIONS = 128


@dataclass(frozen=True)
class Weights:
    """How much each term counts beside the captions' pairs, and how many names and words a step draws."""

    classes: int = 96
    words: int = 64
    names: float = 0.5
    painted: float = 0.3
    keep: float = 0.3
    neighbours: float = 1.0
    softness: float = 0.2


@dataclass(frozen=True)
class Corpus:
    """Everything that a step draws from."""

    train: Cache
    unlabelled: list[Cache]
    captions: dict[str, list[str]]
    names: list[list[str]]
    words: list[str]
    tokenize: Words

    def texts(self) -> set[str]:
        known = {caption for name in self.train.names for caption in self.captions[name]}
        return known | {name for names in self.names for name in names} | set(self.words)


@dataclass(frozen=True)
class Batch:
    maps: Tensor
    probs: Tensor
    captions: list[str]
    """Of the first photos, the others have none."""
    second: list[str]
    """Another caption of each of them."""
    classes: Tensor
    names: list[str]
    prompted: list[str]
    words: list[str]


def draw(corpus: Corpus, rows: list[int], weights: Weights, chance: random.Random) -> Batch:
    """A view of each photo of `rows` with one of its captions, a quarter as many unlabelled photos, some class names, some words.

    Half of the classes are those that the teacher sees most of in these photos.
    """
    view = chance.randrange(len(corpus.train.maps))
    maps, probs = corpus.train.maps[view][rows], corpus.train.probs[view][rows]
    if corpus.unlabelled:
        more = chance.choices(corpus.unlabelled, weights=[len(cache.names) for cache in corpus.unlabelled])[0]
        extra = sorted(chance.sample(range(len(more.names)), min(len(rows) // 4, len(more.names))))
        view = chance.randrange(len(more.maps))
        maps, probs = np.concatenate([maps, more.maps[view][extra]]), np.concatenate([probs, more.probs[view][extra]])
    seen = torch.from_numpy(probs.astype(np.float32))
    likely = seen.sum(0).topk(weights.classes // 2).indices.tolist()
    classes = sorted(set(likely) | set(chance.sample(range(1000), weights.classes // 2)))
    names = [synonym(corpus.names[index], chance) for index in classes]
    if chance.random() < 0.5:
        maps = maps[..., ::-1]
    drawn = [chance.sample(corpus.captions[corpus.train.names[row]], 2) for row in rows]
    return Batch(
        maps=as_batch(maps),
        probs=seen,
        captions=[first for first, _ in drawn],
        second=[second for _, second in drawn],
        classes=torch.tensor(classes),
        names=names,
        prompted=[prompt(name, chance) for name in names],
        words=chance.sample(corpus.words, weights.words),
    )


def terms(model: Starter, batch: Batch, tokenize: Words, original: Original, weights: Weights) -> dict[str, Tensor]:
    """The weighted terms; their sum is the loss."""
    both = model.texts(tokenize, batch.captions + batch.second)
    captions, second = both[: len(batch.captions)], both[len(batch.captions) :]
    short = model.texts(tokenize, batch.prompted + batch.words)
    names, scale = short[: len(batch.names)], model.scale()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.image.upper(batch.maps)
        logits, images = (found.float() for found in model.image.from_features(features))
        fakes = model.image.from_features(_painted(model, features.detach(), batch.classes))[1].float()
    rows = functional.normalize(model.image.head.names[batch.classes], dim=1)
    alike = likeness(original(batch.captions) + original(batch.second), weights.softness)
    captioned = images[: len(captions)]
    named = contrastive(rows, names, scale) + soft_contrastive(images, names, batch.probs[:, batch.classes], scale)
    anchored = torch.cat([captions[:ANCHORED_CAPTIONS], short])
    theirs = original(batch.captions[:ANCHORED_CAPTIONS] + batch.names + batch.words)
    return {
        "pairs": 0.5 * (contrastive(captioned, captions, scale, alike) + contrastive(captioned, second, scale, alike)),
        "names": weights.names * named,
        "painted": weights.painted * contrastive(fakes, names, scale),
        "keep": weights.keep * keep_classes(logits, batch.probs),
        "neighbours": weights.neighbours * keep_neighbours(anchored, theirs),
    }


def _painted(model: Starter, features: Tensor, classes: Tensor) -> Tensor:
    """Each class painted over a photo of the batch, faintly to strongly: the teacher then gives it from 4 to 95 %."""
    below = features[torch.randint(len(features), classes.shape)]
    strength = torch.empty(classes.shape).uniform_(6.0, 14.0)
    return painted(below, model.image.head.classifier.weight.detach(), classes, strength)
