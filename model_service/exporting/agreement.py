"""Whether an export answers as its checkpoint does in float32, and the bounds within which it may be used in its place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from core.masks import Mask
from model_service.exports import Agreement, Kind
from model_service.parts import Instance, Tensor

_SAME = 0.999
"""Of an export in float32 to torch: another order of sums, and nothing else."""
LEAST_MEAN = {"images": 0.98, "words": 0.98, "segments": 0.95}
LEAST_KEPT = {"images": 0.99, "words": 0.99, "segments": 0.95}
"""R@10 within a point: float32 finds its own nearest neighbour always."""
_NEAREST = 10
_SURE = 0.4
_FOUND_IOU = 0.5


def of_embeddings(exact: Tensor, other: Tensor) -> Agreement:
    """Both (n, dim) of unit length, of the same n pictures or texts."""
    cosines = np.nan_to_num(np.sum(exact * other, axis=1), nan=-1.0)
    return Agreement(
        compared=len(exact), mean=float(cosines.mean()), least=float(cosines.min()), kept=_neighbours_kept(exact, other)
    )


def of_segments(exact: Sequence[Sequence[Instance]], other: Sequence[Sequence[Instance]]) -> Agreement:
    """Of the same pictures. What is found with little certainty may be found in one and not in the other, and isn't counted."""
    missed, matches = 0, list[float]()
    for one, two in zip(exact, other, strict=True):
        for found, among in ((one, two), (two, one)):
            for instance in found:
                if instance.score >= _SURE:
                    best = max((_iou(instance.mask, seen.mask) for seen in among if seen.label == instance.label), default=0.0)
                    missed += best < _FOUND_IOU
                    matches += [best] if best >= _FOUND_IOU else []
    compared = missed + len(matches)
    return Agreement(
        compared=compared,
        mean=float(np.mean(matches)) if matches else 0.0,
        least=min(matches, default=0.0),
        kept=len(matches) / compared if compared else 0.0,
    )


def refusal(kind: Kind, agreement: Agreement) -> str | None:
    """Why it may not be used, if it may not."""
    if agreement.compared == 0:
        return "there was nothing to compare"
    what = "mask IoU" if kind == "segments" else "cosine to float32"
    if not agreement.mean >= LEAST_MEAN[kind]:  # also when it is not a number
        return f"mean {what} {agreement.mean:.4f} is below {LEAST_MEAN[kind]}"
    least = LEAST_KEPT[kind]
    if kind != "segments":
        least = min(least, 1 - 1 / agreement.compared)  # one may be lost, of however few
    if agreement.kept < least:
        kept = "segments found again" if kind == "segments" else "nearest neighbours among the first ten"
        return f"{kept}: {agreement.kept:.1%}, less than {least:.1%}"
    return None


def difference(kind: Kind, agreement: Agreement) -> str | None:
    """Why an export in float32 is not the checkpoint's, if it isn't."""
    if kind == "segments":
        return refusal(kind, agreement) if agreement.compared else None  # untrained weights find nothing, here and there
    return None if agreement.least >= _SAME else f"in float32 its least cosine to torch is {agreement.least:.4f}"


def _neighbours_kept(exact: Tensor, other: Tensor) -> float:
    """The share whose nearest neighbour in float32 is among the first ten of the other."""
    if len(exact) < 2:
        return 1.0
    nearest = np.argmax(_without_itself(exact), axis=1)
    ranked = np.argsort(-_without_itself(other), axis=1, kind="stable")[:, :_NEAREST]
    return float(np.mean([row in first for row, first in zip(nearest, ranked, strict=True)]))


def _without_itself(rows: Tensor) -> Tensor:
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -np.inf)
    return cosines


def _iou(one: Mask, other: Mask) -> float:
    return float(np.logical_and(one, other).sum() / max(1, np.logical_or(one, other).sum()))
