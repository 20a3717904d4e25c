"""One step's batch, drawn by chance, and the terms of its loss."""

import random
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.starter.features import Cache
from training.starter.losses import contrastive, keep_classes, keep_neighbours, likeness, painted, soft_contrastive, whose
from training.starter.objects import Objects, spoken
from training.starter.texts import Words, prompt, synonym
from training.starter.towers import Embed, Original, Starter, as_batch

ANCHORED_CAPTIONS = 128


@dataclass(frozen=True)
class Weights:
    """How much each term counts beside the captions' pairs, and how many names and words a step draws."""

    classes: int = 96
    words: int = 64
    names: float = 0.5
    painted: float = 0.3
    keep: float = 0.3
    objects: float = 0.3
    neighbours: float = 1.0
    softness: float = 0.2


@dataclass(frozen=True)
class Captioned:
    """Photos with their captions by name; a photo may have none."""

    photos: Cache
    captions: dict[str, list[str]]

    def rows(self) -> list[int]:
        return [row for row, name in enumerate(self.photos.names) if self.captions.get(name)]

    def texts(self) -> set[str]:
        return {text for name in self.photos.names for text in self.captions.get(name, [])}


@dataclass(frozen=True)
class Corpus:
    """Everything that a step draws from."""

    captioned: list[Captioned]
    unlabelled: list[Cache]
    objects: Objects
    names: list[list[str]]
    words: list[str]
    tokenize: Words

    def photos(self) -> list[Cache]:
        """Every cache once, those with captions first."""
        captioned = [source.photos for source in self.captioned]
        return captioned + [cache for cache in self.unlabelled if all(cache is not other for other in captioned)]

    def texts(self) -> set[str]:
        known = {text for source in self.captioned for texts in source.captions.values() for text in texts}
        known |= {
            spoken(self.objects.found[name])
            for source in self.captioned
            for name in source.captions
            if name in self.objects.found
        }
        return known | {name for names in self.names for name in names} | set(self.words)


@dataclass(frozen=True)
class Batch:
    maps: Tensor
    probs: Tensor
    present: Tensor
    """How sure the detector is of each kind of object in each photo."""
    captions: list[str]
    """Of the first photos, the others have none."""
    second: list[str]
    """Another caption of each of them."""
    classes: Tensor
    names: list[str]
    prompted: list[str]
    kinds: Tensor
    """The kinds of object that these photos have."""
    kind_names: list[str]
    words: list[str]


def draw(corpus: Corpus, source: Captioned, rows: list[int], weights: Weights, chance: random.Random) -> Batch:
    """A view of each photo of `rows` with two of its captions, a quarter as many photos without, some class names, some words.

    Half of the classes are those that the teacher sees most of in these photos.
    """
    unlabelled = chance.choices(corpus.unlabelled, weights=[len(cache.names) for cache in corpus.unlabelled])[0]
    extra = sorted(chance.sample(range(len(unlabelled.names)), min(len(rows) // 4, len(unlabelled.names))))
    views = [_views(cache, chosen, chance) for cache, chosen in ((source.photos, rows), (unlabelled, extra))]
    maps, probs = (np.concatenate(parts) for parts in zip(*views, strict=True))
    if chance.random() < 0.5:
        maps = maps[..., ::-1]
    seen = torch.from_numpy(probs.astype(np.float32))
    likely = seen.sum(0).topk(weights.classes // 2).indices.tolist()
    classes = sorted(set(likely) | set(chance.sample(range(1000), weights.classes // 2)))
    names = [synonym(corpus.names[index], chance) for index in classes]
    photos = [source.photos.names[row] for row in rows]
    present = corpus.objects.present(photos + [unlabelled.names[row] for row in extra])
    kinds = (present.sum(0) > 0).nonzero().flatten()
    drawn = [_two(source.captions[name], corpus.objects.found.get(name, {}), chance) for name in photos]
    return Batch(
        maps=as_batch(maps),
        probs=seen,
        present=present,
        captions=[first for first, _ in drawn],
        second=[second for _, second in drawn],
        classes=torch.tensor(classes),
        names=names,
        prompted=[prompt(name, chance) for name in names],
        kinds=kinds,
        kind_names=[prompt(corpus.objects.names[kind], chance) for kind in kinds.tolist()],
        words=chance.sample(corpus.words, weights.words),
    )


def _views(cache: Cache, rows: list[int], chance: random.Random) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """A view of each, drawn for each."""
    views = [chance.randrange(len(cache.maps)) for _ in rows]
    return cache.maps[views, rows], cache.probs[views, rows]


def _two(captions: list[str], found: dict[str, int], chance: random.Random) -> tuple[str, str]:
    """Two captions; where there is but one, the other says what objects there are."""
    if len(captions) > 1:
        first, second = chance.sample(captions, 2)
        return first, second
    return captions[0], spoken(found) or captions[0]


def terms(model: Starter, batch: Batch, embed: Embed, original: Original, weights: Weights) -> dict[str, Tensor]:
    """The weighted terms; their sum is the loss."""
    both = embed(batch.captions + batch.second)
    captions, second = both[: len(batch.captions)], both[len(batch.captions) :]
    short = embed(batch.prompted + batch.words + batch.kind_names)
    names, kinds = short[: len(batch.names)], short[len(short) - len(batch.kind_names) :]
    scale = model.scale()
    with torch.autocast("cpu", torch.bfloat16):
        features = model.image.upper(batch.maps)
        logits, images = (part.float() for part in model.image.from_features(features))
    rows = functional.normalize(model.image.head.names[batch.classes], dim=1)
    alike = likeness(original(batch.captions) + original(batch.second), weights.softness)
    captioned = images[: len(captions)]
    named = contrastive(rows, names, scale) + soft_contrastive(images, names, batch.probs[:, batch.classes], scale)
    found = {
        "pairs": 0.5 * (contrastive(captioned, captions, scale, alike) + contrastive(captioned, second, scale, alike)),
        "names": weights.names * named,
        "objects": weights.objects * whose(images, kinds, batch.present[:, batch.kinds], scale),
        "keep": weights.keep * keep_classes(logits, batch.probs),
    }
    if both.requires_grad:
        anchored = torch.cat([captions[:ANCHORED_CAPTIONS], short[: len(short) - len(kinds)]])
        theirs = original(batch.captions[:ANCHORED_CAPTIONS] + batch.names + batch.words)
        found["neighbours"] = weights.neighbours * keep_neighbours(anchored, theirs)
    if weights.painted:
        found["painted"] = weights.painted * contrastive(_painted(model, features.detach(), batch.classes), names, scale)
    return found


def _painted(model: Starter, features: Tensor, classes: Tensor) -> Tensor:
    """Each class painted over a photo of the batch, faintly to strongly: the teacher then gives it from 4 to 95 %."""
    below = features[torch.randint(len(features), classes.shape)]
    strength = torch.empty(classes.shape).uniform_(6.0, 14.0)
    features = painted(below, model.image.head.classifier.weight.detach(), classes, strength)
    with torch.autocast("cpu", torch.bfloat16):
        return model.image.from_features(features)[1].float()
