"""Metric learning: a tower and a head that bring pictures of one label together.

Triplet loss with semi-hard negatives (Schroff, Kalenichenko, Philbin: FaceNet, 2015) on batches of P labels with K pictures each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import TripletMarginMiner
from pytorch_metric_learning.samplers import MPerClassSampler
from torch import Tensor
from torch.utils.data import DataLoader

from training.evaluation.scores import Retrieval
from training.fitting import Fitting, fit
from training.labelled import Begun, begin
from training.measured import found_by_picture, neighbours
from training.options import MetricOptions
from training.pictures import UnusablePictures
from training.profiles import card, write_image_profile
from training.runs import Epoch
from training.towers import features_of, freezes_norms, projected
from training.views import RandomViews

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Metric:
    """Where it is served from, its log, and how the test pictures found each other before and after."""

    profile: Path
    epochs: list[Epoch]
    before: Retrieval
    after: Retrieval

    def __str__(self) -> str:
        first, then = (
            f"{found.recall_at[1]} / {found.recall_at[5]} / {found.recall_at[10]}" for found in (self.before, self.after)
        )
        return f"R@1/5/10 on the test pictures: {first} untrained, {then} trained"


def train_metric(options: MetricOptions) -> Metric:
    """Raises UnusablePictures and its kin."""
    begun = begin(options)
    image, test = begun.image, begun.test
    before = found_by_picture(test, image.backbone, options.seed)
    image.backbone.projection = projected(features_of(image.backbone, test.first()), options.dim).to(begun.numbers.device)
    best = fit(_fitting(options, begun), begun.run, options, begun.numbers)
    after = found_by_picture(test, image.backbone, options.seed)
    trained = Metric(options.models_dir / options.name, begun.run.epochs, before, after)
    lines = [
        f"Triplet loss, {options.mining} negatives, {options.dim} numbers; {len(begun.found.train)} pictures to learn from.",
        f"{len(test.found)} test pictures ({begun.found.held_out}), half of them asking for the other half. {trained}.",
    ]
    write_image_profile(options, image, report=card(options, "Compares pictures.", begun.run.epochs, best, lines))
    return trained


def _fitting(options: MetricOptions, begun: Begun) -> Fitting[Batch]:
    model = begun.image.backbone
    assert model.projection is not None  # noqa: S101 - given above
    miner = TripletMarginMiner(margin=options.margin, type_of_triplets=options.mining)
    criterion = TripletMarginLoss(margin=options.margin)
    optimiser = torch.optim.AdamW(
        [
            {"params": list(model.model.parameters()), "lr": options.learning_rate},
            {"params": list(model.projection.parameters()), "lr": options.head_learning_rate},
        ],
        weight_decay=options.weight_decay,
    )

    def loss(batch: Batch) -> Tensor:
        pixels, labels = batch
        embeddings = model(pixels.to(begun.numbers.device, memory_format=torch.channels_last)).float()
        picked: Tensor = criterion(embeddings, labels, miner(embeddings, labels))
        return picked

    return Fitting(
        model=model,
        optimiser=optimiser,
        schedule=torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.3, patience=2),
        batches=lambda epoch: _Batches(options, begun, epoch),
        loss=loss,
        scores=lambda: neighbours(begun.validation, model, options.seed),
        watched="mAP",
        freeze_norms=freezes_norms(options, begun.image),
    )


class _Batches:
    """The P x K batches of one epoch."""

    def __init__(self, options: MetricOptions, begun: Begun, epoch: int) -> None:
        train = begun.found.train
        self._labels = torch.tensor(train.labels)
        present = len(train.rows_by_label())
        size = min(options.labels_per_batch, present) * options.pictures_per_label
        if present < 2 or len(train) < size:
            raise UnusablePictures(f"{len(train)} pictures of {present} labels make no batch of {size}: lower P or K")
        sampler = MPerClassSampler(train.labels, options.pictures_per_label, batch_size=size, length_before_new_iter=len(train))
        views = RandomViews(
            train.paths, begun.image.processor, smallest_crop=options.smallest_crop, seed=options.seed, epoch=epoch
        )
        self._loader = DataLoader(views, batch_size=size, sampler=sampler, num_workers=options.workers, drop_last=True)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for pixels, rows in self._loader:
            yield pixels, self._labels[rows]
