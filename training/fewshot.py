"""Few-shot learning: Prototypical Networks (Snell, Swersky, Zemel, 2017), trained on episodes of N labels with K examples each."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from training.evaluation.scores import FewShot
from training.fitting import Fitting, fit
from training.labelled import Begun, begin
from training.measured import told_apart
from training.options import FewShotOptions
from training.pictures import UnusablePictures
from training.profiles import card, write_image_profile
from training.runs import Epoch
from training.towers import freezes_norms
from training.views import RandomViews

_MONITORED_EPISODES = 100
_SHARPNESS = 10.0
"""Of the softmax over distances: those of L2-normalised vectors, as they are served, are at most 2."""


@dataclass(frozen=True, slots=True)
class Prototypical:
    """Where it is served from, its log, and how well it told the test labels apart before and after."""

    profile: Path
    epochs: list[Epoch]
    before: FewShot
    after: FewShot

    def __str__(self) -> str:
        first, then = (
            f"{each.mean:.1f} % ({each.low:.1f} to {each.high:.1f})" for each in (self.before.accuracy, self.after.accuracy)
        )
        return f"accuracy on the test labels, with its 95 % interval: {first} untrained, {then} trained"


def train_fewshot(options: FewShotOptions) -> Prototypical:
    """Raises UnusablePictures and its kin."""
    begun = begin(options)
    image, test = begun.image, begun.test
    before = told_apart(test, image.backbone, options, options.measured_episodes)
    best = fit(_fitting(options, begun), begun.run, options, begun.numbers)
    after = told_apart(test, image.backbone, options, options.measured_episodes)
    trained = Prototypical(options.models_dir / options.name, begun.run.epochs, before, after)
    lines = [
        f"Prototypical networks, {options.ways} ways, {options.shots} shots; {len(begun.found.train)} pictures to learn from.",
        f"{len(test.found)} test pictures ({begun.found.held_out}), {options.measured_episodes} episodes. {trained}.",
    ]
    write_image_profile(
        options, image, report=card(options, "Tells things apart by a few examples.", begun.run.epochs, best, lines)
    )
    return trained


def prototype_loss(features: Tensor, ways: int, shots: int) -> Tensor:
    """Cross-entropy of the queries against the prototypes. `features` (ways * (shots + queries), dim): way after way, the shots first."""
    by_way = functional.normalize(features.float(), dim=1).reshape(ways, -1, features.shape[1])
    prototypes, queries = by_way[:, :shots].mean(1), by_way[:, shots:]
    distances = torch.cdist(queries.flatten(0, 1), prototypes)
    own = torch.arange(ways, device=features.device).repeat_interleave(queries.shape[1])
    return functional.cross_entropy(-_SHARPNESS * distances, own)


def _fitting(options: FewShotOptions, begun: Begun) -> Fitting[Tensor]:
    model = begun.image.backbone
    optimiser = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay)

    def loss(pixels: Tensor) -> Tensor:
        features = model(pixels.to(begun.numbers.device, memory_format=torch.channels_last))
        return prototype_loss(features, options.ways, options.shots)

    return Fitting(
        model=model,
        optimiser=optimiser,
        schedule=torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.3, patience=2),
        batches=lambda epoch: _Episodes(options, begun, epoch),
        loss=loss,
        scores=lambda: {"accuracy": told_apart(begun.validation, model, options, _MONITORED_EPISODES).accuracy.mean},
        watched="accuracy",
        freeze_norms=freezes_norms(options, begun.image),
    )


class _Episodes:
    """The episodes of one epoch, as `prototype_loss` wants them: pixels (ways * (shots + queries), 3, h, w)."""

    def __init__(self, options: FewShotOptions, begun: Begun, epoch: int) -> None:
        train = begun.found.train
        each = options.shots + options.queries
        of_label = [rows for rows in train.rows_by_label().values() if len(rows) >= each]
        if len(of_label) < options.ways:
            text = f"{len(of_label)} labels have {each} pictures to learn from: lower --ways, --shots or --queries"
            raise UnusablePictures(f"no episode can be drawn: {text}")
        drawn = random.Random(f"{options.seed} {epoch}")  # noqa: S311 - a draw that a seed repeats
        episodes = [
            [row for rows in drawn.sample(of_label, options.ways) for row in drawn.sample(rows, each)]
            for _ in range(options.episodes)
        ]
        views = RandomViews(
            train.paths, begun.image.processor, smallest_crop=options.smallest_crop, seed=options.seed, epoch=epoch
        )
        self._loader = DataLoader(views, batch_sampler=episodes, num_workers=options.workers)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Tensor]:
        for pixels, _ in self._loader:
            yield pixels
