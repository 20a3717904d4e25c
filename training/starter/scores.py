"""Retrieval scores from two sets of L2-normalised vectors."""

from dataclasses import dataclass

import numpy as np

from training.evaluation.intervals import Rows
from training.evaluation.scores import Ranking, Vectors, rank


@dataclass(frozen=True)
class Recall:
    at_1: float
    at_5: float
    at_10: float

    def __str__(self) -> str:
        return f"{self.at_1:.1f} / {self.at_5:.1f} / {self.at_10:.1f}"


def recall_of_ranks(ranks: Rows) -> Recall:
    """From the best rank (0 = first) of a right answer for each query, in per cent."""
    return Recall(*(float((ranks < k).mean() * 100) for k in (1, 5, 10)))


def text_to_image(texts: Vectors, images: Vectors, owner: Rows) -> Recall:
    """`owner[i]` is the row of the image that text i describes."""
    return _recall(rank(texts, images, owner, np.arange(len(images))))


def image_to_text(texts: Vectors, images: Vectors, owner: Rows) -> Recall:
    return _recall(rank(images, texts, np.arange(len(images)), owner))


def found_by_name(names: Vectors, images: Vectors, label: Rows) -> Recall:
    """Each labelled image, asked for by its label's name, among all images; `label` is -1 where an image has none.

    An image counts as found at k when fewer than k images of *other* labels rank above it.
    """
    labelled = np.flatnonzero(label >= 0)
    sims = names[label[labelled]] @ images.T
    own = sims[np.arange(len(labelled)), labelled]
    others = label[None, :] != label[labelled][:, None]
    return recall_of_ranks(((sims > own[:, None]) & others).sum(1))


def zero_shot(names: Vectors, images: Vectors, label: Rows) -> Recall:
    """The share of images whose label's name is among the nearest 1, 5 and 10 names."""
    sims = images @ names.T
    own = sims[np.arange(len(images)), label]
    return recall_of_ranks((sims > own[:, None]).sum(1))


def image_to_image(images: Vectors, label: Rows) -> tuple[float, float]:
    """Leave-one-out by label. Returns mean average precision and recall at 1, in per cent."""
    ranking = rank(images, images, label, label, leave_one_out=True)
    return float(ranking.average_precision.mean() * 100), _recall(ranking).at_1


def _recall(ranking: Ranking) -> Recall:
    return recall_of_ranks(ranking.first_rank - 1)
