"""Regions by merging neighbouring cells that look alike, until one is left: each node of the tree is a region, some of them things.

A node that is born early and merged late differs from what surrounds it more than its parts differ from each other: the longer it
lives, the likelier it is a thing. What touches much of the frame is more likely a background.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import ward_tree
from sklearn.feature_extraction.image import grid_to_graph

from core.decode import Pixels
from training.proposals.cells import Cells, Sight, side_by_side
from training.proposals.regions import Region, distinct, stretched

MOST = 32
_LONGER = 40
"""Cells along the longer side; with 28 things were covered a little worse, with 56 (on half of the photos) no better."""
_SHARES = (0.006, 0.75)
_SAME_IOU = 0.7


@dataclass(frozen=True, slots=True)
class _Nodes:
    masks: NDArray[np.bool_]
    """(nodes, rows, columns)"""
    lives: NDArray[np.float64]
    """(nodes,): between what their parts and what they themselves were merged at."""


@dataclass(frozen=True, slots=True)
class TreeProposer:
    """Ward's tree (minimum variance, neighbours only) over what its sights know of a picture."""

    sights: tuple[Sight, ...]

    def __call__(self, pixels: Pixels) -> list[Region]:
        """At most `MOST` regions of 0.6 % to 75 % of the picture, best first, none of them twice."""
        nodes = _tree(side_by_side(self.sights, pixels, _LONGER))
        shares = nodes.masks.mean(axis=(1, 2))
        kept = (shares >= _SHARES[0]) & (shares <= _SHARES[1]) & (nodes.lives > 0)
        masks = nodes.masks[kept]
        scores = nodes.lives[kept] * (1 - _on_frame(masks))
        coarse = [Region(mask, float(score)) for mask, score in zip(masks, scores, strict=True)]
        return [Region(stretched(region.mask, pixels), region.score) for region in distinct(coarse, MOST, _SAME_IOU)]


def _tree(cells: Cells) -> _Nodes:
    rows, columns, channels = cells.shape
    leaves = rows * columns
    merged, _, _, _, heights = ward_tree(
        cells.reshape(leaves, channels), connectivity=grid_to_graph(rows, columns), return_distance=True
    )
    masks = np.zeros((2 * leaves - 1, leaves), dtype=np.bool_)
    masks[:leaves] = np.eye(leaves, dtype=np.bool_)
    born, ended = np.zeros(len(masks)), np.full(len(masks), heights[-1])
    born[leaves:] = heights
    for node, (one, other) in enumerate(merged, start=leaves):
        masks[node] = masks[one] | masks[other]
        ended[[one, other]] = born[node]
    return _Nodes(masks.reshape(-1, rows, columns), ended - born)


def _on_frame(masks: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The part of the picture's frame that each mask lies on."""
    sides = (masks[:, 0], masks[:, -1], masks[:, :, 0], masks[:, :, -1])
    touched = sum(side.sum(axis=1) for side in sides)
    return np.asarray(touched / (2.0 * (masks.shape[1] + masks.shape[2])))
