"""A dual encoder: an image tower and a text tower that meet in one space, from captioned pictures.

InfoNCE over the batch (Radford et al., CLIP, 2021) or SigLIP's pairwise sigmoid (Zhai et al., 2023).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from training.evaluation.intervals import draws
from training.evaluation.scores import Ranking, Retrieval, Vectors, rank, retrieval
from training.fitting import Arithmetic, Fitting, arithmetic, fit
from training.measured import embedded
from training.options import DualEncoderOptions
from training.pictures import Captioned, UnusablePictures, captioned, readable, split_captioned
from training.profiles import card, write_dual_profile
from training.runs import Epoch, Run, seeded
from training.towers import StartImage, StartText, features_of, freezes_norms, projected, start_image, start_text
from training.views import RandomViews, ServedViews

_WARM_UP = 0.1
_TEXTS_AT_ONCE = 256
_SHARPEST = math.log(100.0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """A batch: pixels (n, 3, h, w), and one caption of each picture as `input_ids` and `attention_mask` (n, tokens)."""

    pixels: Tensor
    tokens: Any


@dataclass(frozen=True, slots=True)
class Dual:
    """Where it is served from, its log, and how captions find the test pictures (those of validation where there are no others)."""

    profile: Path
    epochs: list[Epoch]
    text_to_image: Retrieval

    def __str__(self) -> str:
        return "R@1/5/10 of captions asking for their pictures: " + " / ".join(
            str(self.text_to_image.recall_at[k]) for k in (1, 5, 10)
        )


class DualEncoder(nn.Module):
    """Both towers and the scale of their similarities, as a logarithm; SigLIP has a bias as well."""

    def __init__(self, image: nn.Module, text: nn.Module, kind: str) -> None:
        super().__init__()
        self.image, self.text, self.kind = image, text, kind
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0 if kind == "siglip" else 1 / 0.07)))
        self.bias = nn.Parameter(torch.tensor(-10.0 if kind == "siglip" else 0.0), requires_grad=kind == "siglip")

    def loss(self, images: Tensor, texts: Tensor) -> Tensor:
        """Of features (n, dim) each, picture i belonging to text i."""
        similar = functional.normalize(images.float(), dim=1) @ functional.normalize(texts.float(), dim=1).T
        logits = similar * self.log_scale.clamp(max=_SHARPEST).exp() + self.bias
        if self.kind == "siglip":
            signs = 2 * torch.eye(len(logits), device=logits.device) - 1
            return -functional.logsigmoid(signs * logits).sum(1).mean()
        own = torch.arange(len(logits), device=logits.device)
        return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def train_dual_encoder(options: DualEncoderOptions) -> Dual:
    """Raises UnusablePictures and its kin."""
    numbers = arithmetic(options)
    train, validation, test = _parts(options)
    if len(train) < options.batch:
        raise UnusablePictures(f"{len(train)} pictures make no batch of {options.batch}: lower --batch")
    run = Run.open(options)
    seeded(options.seed)
    image = start_image(options.tower, options.models_dir)
    text = start_text(options.text_tower, options.pooling, options.models_dir)
    pixels = ServedViews(train.paths[:1], image.processor)[0][None]
    tokens = text.tokenizer(["a photo"], return_tensors="pt")
    image.backbone.projection = projected(features_of(image.backbone.eval(), pixels), options.dim)
    words = features_of(text.backbone.eval(), tokens["input_ids"], tokens["attention_mask"])
    text.backbone.projection = projected(words, options.dim)
    best = fit(_fitting(options, image, text, (train, validation), numbers), run, options, numbers)
    ranking = _ranking(test, image, text, numbers)
    found = retrieval(ranking, _owners(test), draws(options.seed, "captions"))
    trained = Dual(options.models_dir / options.name, run.epochs, found)
    lines = [f"{len(train)} captioned pictures to learn from, {len(test)} to test. {trained}."]
    write_dual_profile(
        options, image, text, report=card(options, "Finds pictures by words and by pictures.", run.epochs, best, lines)
    )
    return trained


def _parts(options: DualEncoderOptions) -> tuple[Captioned, Captioned, Captioned]:
    """Train, validation and test. Raises UnusablePictures."""
    found = captioned(options.pictures, options.captions)
    if isinstance(found, Captioned):
        found = {"train": found}
    if "train" not in found:
        raise UnusablePictures(f"{options.captions} names the splits {', '.join(sorted(found))}, and no train among them")
    kept = {split: part.of(row for row, opens in enumerate(readable(part.paths)) if opens) for split, part in found.items()}
    if unreadable := sum(map(len, found.values())) - sum(map(len, kept.values())):
        sys.stdout.write(f"left out: {unreadable} files that cannot be read as pictures\n")
    train = kept["train"]
    validation = kept.get("validation")
    if validation is None:
        train, validation = split_captioned(train, options.validation_share, options.seed)
    return train, validation, kept.get("test", validation)


def _fitting(
    options: DualEncoderOptions, image: StartImage, text: StartText, parts: tuple[Captioned, Captioned], numbers: Arithmetic
) -> Fitting[Pairs]:
    train, validation = parts
    model = DualEncoder(image.backbone, text.backbone, options.loss).to(numbers.device)
    image.backbone.to(memory_format=torch.channels_last)
    image.backbone.model.requires_grad_(not options.freeze_image)
    text.backbone.model.requires_grad_(not options.freeze_text)
    optimiser = torch.optim.AdamW(_groups(model, options), weight_decay=options.weight_decay)
    steps = options.epochs * (len(train) // options.batch)

    def loss(pairs: Pairs) -> Tensor:
        images = model.image(pairs.pixels.to(numbers.device, memory_format=torch.channels_last))
        texts = model.text(pairs.tokens["input_ids"].to(numbers.device), pairs.tokens["attention_mask"].to(numbers.device))
        return model.loss(images, texts)

    return Fitting(
        model=model,
        optimiser=optimiser,
        schedule=torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _share_of_peak(step, steps)),
        batches=lambda epoch: _Batches(options, train, image, text, epoch),
        loss=loss,
        scores=lambda: _scores(validation, image, text, numbers),
        watched="mean",
        freeze_norms=freezes_norms(options, image),
    )


def _groups(model: DualEncoder, options: DualEncoderOptions) -> list[dict[str, Any]]:
    """The towers' own weights at the low rate; projections, scale and bias at the high one, the last two without decay."""
    named = list(model.named_parameters())
    own = [weights for name, weights in named if ".model." in name and weights.requires_grad]
    new = [weights for name, weights in named if ".projection." in name]
    return [
        {"params": own, "lr": options.learning_rate},
        {"params": new, "lr": options.head_learning_rate},
        {"params": [model.log_scale, model.bias], "lr": options.head_learning_rate, "weight_decay": 0.0},
    ]


def _share_of_peak(step: int, steps: int) -> float:
    """Up in a straight line, then down along a cosine."""
    rise = max(1, round(steps * _WARM_UP))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, steps - rise))))


class _Batches:
    """The batches of one epoch: each picture once, with one of its captions."""

    def __init__(self, options: DualEncoderOptions, train: Captioned, image: StartImage, text: StartText, epoch: int) -> None:
        self._captions = train.captions
        self._text = text
        self._max_tokens = min(options.max_tokens, text.max_tokens)
        self._drawn = np.random.default_rng([options.seed, epoch])
        views = RandomViews(train.paths, image.processor, smallest_crop=options.smallest_crop, seed=options.seed, epoch=epoch)
        self._loader = DataLoader(views, batch_size=options.batch, shuffle=True, drop_last=True, num_workers=options.workers)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Pairs]:
        for pixels, rows in self._loader:
            captions = [self._captions[row][self._drawn.integers(len(self._captions[row]))] for row in rows.tolist()]
            yield Pairs(pixels, _tokens(self._text, captions, self._max_tokens))


def _tokens(text: StartText, captions: list[str], max_tokens: int) -> Any:
    return text.tokenizer(captions, padding=True, truncation=True, max_length=max_tokens, return_tensors="pt")


def _scores(found: Captioned, image: StartImage, text: StartText, numbers: Arithmetic) -> dict[str, float]:
    """Of captions asking for their pictures, in per cent; `mean` is that of the three."""
    ranking = _ranking(found, image, text, numbers)
    recalls = {f"R@{k}": float((ranking.first_rank <= k).mean() * 100) for k in (1, 5, 10)}
    return recalls | {"mean": sum(recalls.values()) / len(recalls)}


def _ranking(found: Captioned, image: StartImage, text: StartText, numbers: Arithmetic) -> Ranking:
    pictures = embedded(ServedViews(found.paths, image.processor), image.backbone, numbers)
    texts = _embedded_texts(list(chain.from_iterable(found.captions)), text, numbers)
    return rank(texts, pictures, _owners(found), np.arange(len(found)))


def _owners(found: Captioned) -> Any:
    return np.repeat(np.arange(len(found)), [len(captions) for captions in found.captions])


def _embedded_texts(texts: list[str], text: StartText, numbers: Arithmetic) -> Vectors:
    """(n, dim), L2-normalised; longest first in batches of like length, so that padding costs little."""
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    backbone = text.backbone.to(numbers.device).eval()
    parts = []
    with torch.inference_mode(), numbers.context():
        for start in range(0, len(order), _TEXTS_AT_ONCE):
            tokens = _tokens(text, [texts[row] for row in order[start : start + _TEXTS_AT_ONCE]], text.max_tokens)
            features = backbone(tokens["input_ids"].to(numbers.device), tokens["attention_mask"].to(numbers.device))
            parts.append(functional.normalize(features.float(), dim=1).cpu().numpy())
    return np.asarray(np.concatenate(parts)[np.argsort(order)], dtype=np.float32)
