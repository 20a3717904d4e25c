"""How a tower does while it is trained: pictures as they are served, embedded with its weights of the moment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader

from model_service.backbones import ImageBackbone
from training.evaluation.intervals import Rows, draws
from training.evaluation.scores import FewShot, Ranking, Retrieval, Vectors, few_shot, rank, retrieval
from training.fitting import Arithmetic
from training.options import FewShotOptions
from training.pictures import Labelled, UnusablePictures, query_and_gallery
from training.views import ServedViews

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Pictures:
    """Labelled pictures with what prepares them and what computes."""

    found: Labelled
    processor: Any
    numbers: Arithmetic

    def first(self) -> Tensor:
        """The first picture, prepared: (1, 3, h, w)."""
        return ServedViews(self.found.paths[:1], self.processor)[0][None].to(self.numbers.device)

    def embedded(self, backbone: ImageBackbone) -> Vectors:
        """(n, dim), L2-normalised."""
        return embedded(ServedViews(self.found.paths, self.processor), backbone, self.numbers)


def embedded(views: ServedViews, backbone: ImageBackbone, numbers: Arithmetic) -> Vectors:
    """(n, dim), L2-normalised. Leaves the backbone in evaluation mode."""
    backbone.eval()
    with torch.inference_mode(), numbers.context():
        parts = [
            functional.normalize(backbone(pixels.to(numbers.device, memory_format=torch.channels_last)).float(), dim=1).cpu()
            for pixels in DataLoader(views, batch_size=_BATCH)
        ]
    return np.asarray(torch.cat(parts).numpy(), dtype=np.float32)


def neighbours(pictures: Pictures, backbone: ImageBackbone, seed: int) -> dict[str, float]:
    """R@1/5/10 and mAP in per cent: half of each label's pictures ask for the other half."""
    ranking = _ranking(pictures, backbone, seed)
    found = {f"R@{k}": float((ranking.first_rank <= k).mean() * 100) for k in (1, 5, 10)}
    return found | {"mAP": float(ranking.average_precision.mean() * 100)}


def found_by_picture(pictures: Pictures, backbone: ImageBackbone, seed: int) -> Retrieval:
    """As `neighbours`, with intervals."""
    ranking = _ranking(pictures, backbone, seed)
    return retrieval(ranking, np.arange(ranking.asked), draws(seed, "neighbours"))


def told_apart(pictures: Pictures, backbone: ImageBackbone, options: FewShotOptions, episodes: int) -> FewShot:
    """Accuracy of prototypes over episodes that follow from the seed alone. Raises UnusablePictures when no episode can be drawn."""
    found = few_shot(
        pictures.embedded(backbone),
        np.array(pictures.found.labels),
        draws(options.seed, "episodes"),
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        episodes=episodes,
    )
    if found is None:
        wanted = options.shots + options.queries
        raise UnusablePictures(
            f"fewer than {options.ways} labels are held out with {wanted} pictures each: lower --ways, --shots or --queries"
        )
    return found


def _ranking(pictures: Pictures, backbone: ImageBackbone, seed: int) -> Ranking:
    query, gallery = query_and_gallery(pictures.found, seed)
    row_of = {path: row for row, path in enumerate(pictures.found.paths)}
    vectors = pictures.embedded(backbone)
    asking, searched = ([row_of[path] for path in part.paths] for part in (query, gallery))
    return rank(vectors[asking], vectors[searched], _keys(query), _keys(gallery))


def _keys(found: Labelled) -> Rows:
    return np.array(found.labels, dtype=np.int64)
