"""Nodes of a Qdrant cluster fail, come back, or are replaced and filled again: played over thousands of years.

Nodes fail on their own; a replaced one is filled by the others as fast as it takes. So each node's times can be drawn by themselves and laid
beside those of the others, and no clock has to be stepped. Times are in hours.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from imagesearch.sizing.chances import YEAR_H, Node

Hours = NDArray[np.float64]

_AT_ONCE = 250
"""Years."""


@dataclass(frozen=True, slots=True)
class Cluster:
    nodes: int
    shards: int
    replicas: int
    write_consistency: int
    held_bytes: float
    """By each node."""
    node: Node = field(default_factory=Node)
    memoryless: bool = False
    """Restoring takes times with an exponential distribution instead of a fixed one, as the closed forms have it."""

    def holders(self) -> Counter[tuple[int, ...]]:
        """How many shards each set of nodes holds: one after the other, round and round."""
        return Counter(
            tuple(sorted((shard + copy) % self.nodes for copy in range(self.replicas))) for shard in range(self.shards)
        )


class Played(NamedTuple):
    """Hours a year."""

    years: int
    unsearchable_h: float
    """In which some shard has no copy that answers."""
    refused_h: float
    """In which writes to some shard find too few copies."""
    one_shard_unsearchable_h: float
    """The same of one shard, the mean of all."""
    one_shard_refused_h: float
    no_majority_h: float


@dataclass(frozen=True, slots=True)
class Downs:
    """Of one node: when it goes and when it is back, and whether its disk was gone."""

    starts: Hours
    ends: Hours
    gone: NDArray[np.bool_]


def played(cluster: Cluster, *, years: int, seed: int) -> Played:
    """In parts of some hundred years, so that no array grows beyond a hundred megabytes."""
    seeds = np.random.SeedSequence(seed).spawn(-(-years // _AT_ONCE))
    parts = [_played(cluster, min(_AT_ONCE, years - _AT_ONCE * n), one) for n, one in enumerate(seeds)]
    means = np.average([part[1:] for part in parts], axis=0, weights=[part.years for part in parts])
    return Played(years, *means.tolist())


def lost(cluster: Cluster, *, years: int, seed: int) -> tuple[int, int]:
    """How often all copies of some shard were gone at once, and how many shards that was: they are made anew from the pictures.

    Of nodes that lose their disks alone, so that a million years are played in seconds.
    """
    calm = replace(cluster, node=replace(cluster.node, away_a_year=0.0))
    random = np.random.default_rng(seed)
    return _losses([_drawn(calm, years * YEAR_H, random) for _ in range(cluster.nodes)], cluster.holders())


def _played(cluster: Cluster, years: int, seed: np.random.SeedSequence) -> Played:
    random, horizon_h = np.random.default_rng(seed), years * YEAR_H
    times, steps = _timeline([_drawn(cluster, horizon_h, random) for _ in range(cluster.nodes)])
    lengths = np.diff(np.append(times, horizon_h)) / years
    down = np.cumsum(steps, axis=0, dtype=np.int16)
    holders = cluster.holders()
    share = np.array(list(holders.values())) / cluster.shards
    there = np.stack([cluster.replicas - down[:, list(nodes)].sum(axis=1) for nodes in holders], axis=1)
    unsearchable, refused = there == 0, there < cluster.write_consistency
    no_majority = cluster.nodes - down.sum(axis=1) <= cluster.nodes // 2
    return Played(
        years,
        unsearchable_h=float(lengths @ unsearchable.any(axis=1)),
        refused_h=float(lengths @ refused.any(axis=1)),
        one_shard_unsearchable_h=float(lengths @ (unsearchable @ share)),
        one_shard_refused_h=float(lengths @ (refused @ share)),
        no_majority_h=float(lengths @ no_majority),
    )


def _drawn(cluster: Cluster, horizon_h: float, random: np.random.Generator) -> Downs:
    """Up for a time of exponential distribution, then down by the one cause or the other."""
    node = cluster.node
    rate = (node.away_a_year + node.lost_a_year) / YEAR_H
    count = int(horizon_h * rate * 1.1 + 10 * np.sqrt(horizon_h * rate) + 20)
    up = random.exponential(1 / rate, count)
    gone = random.random(count) < node.lost_a_year / (node.away_a_year + node.lost_a_year)
    away_h = random.exponential(node.away_h, count)
    lost_h = node.lost_h(cluster.held_bytes)
    lost = (
        random.exponential(lost_h, count)
        if cluster.memoryless
        else random.exponential(node.replaced_h, count) + (lost_h - node.replaced_h)
    )
    took = np.where(gone, lost, away_h)
    ends = np.cumsum(up + took)
    within = ends < horizon_h
    return Downs((ends - took)[within], ends[within], gone[within])


def _timeline(downs: list[Downs]) -> tuple[Hours, NDArray[np.int8]]:
    """Every moment at which something changes, and for each node whether it goes (1) or comes (-1) then; begins at 0 with all there."""
    times = np.concatenate([np.zeros(1), *(part for one in downs for part in (one.starts, one.ends))])
    steps = np.zeros((len(times), len(downs)), dtype=np.int8)
    at = 1
    for node, one in enumerate(downs):
        steps[at : at + len(one.starts), node] = 1
        at += len(one.starts)
        steps[at : at + len(one.ends), node] = -1
        at += len(one.ends)
    order = np.argsort(times, kind="stable")
    return times[order], steps[order]


def _losses(downs: list[Downs], holders: Counter[tuple[int, ...]]) -> tuple[int, int]:
    """Moments at which the last copy goes while all others are gone; and the shards that were lost at them."""
    moments = {nodes: _all_gone(downs, nodes) for nodes in holders}
    at = np.concatenate(list(moments.values()))
    return len(np.unique(at)), sum(len(found) * holders[nodes] for nodes, found in moments.items())


def _all_gone(downs: list[Downs], nodes: tuple[int, ...]) -> Hours:
    starts = [downs[node].starts[downs[node].gone] for node in nodes]
    ends = [downs[node].ends[downs[node].gone] for node in nodes]
    found = list[Hours]()
    for last in range(len(nodes)):
        moments = starts[last]
        for other in range(len(nodes)):
            if other != last:
                before = np.searchsorted(starts[other], moments)
                moments = moments[np.concatenate([[-np.inf], ends[other]])[before] > moments]
        found.append(moments)
    return np.concatenate(found)
