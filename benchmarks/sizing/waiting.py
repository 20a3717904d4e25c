"""Pictures come, wait for a free place, and are ingested, while some places, or all, are away for a time: how long they wait."""

from __future__ import annotations

import heapq
import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Outage:
    """`places` of all are away from `at_s` on, for `for_s`. What they had in hand is begun anew elsewhere after `noticed_s`, when its lease ends;
    None: they end it, and begin nothing."""

    at_s: float
    for_s: float
    places: int
    noticed_s: float | None = None


@dataclass(frozen=True, slots=True)
class Waited:
    """Seconds. A wait is from a picture's arrival until its last run begins."""

    mean: float
    longest: float
    caught_up: float
    """From the end of the outage until nothing waits; 0 without one."""
    redone: int


class _Kind(IntEnum):
    """In the order in which they count at one moment."""

    ENDED, UP, DOWN, CAME = range(4)


@dataclass(frozen=True, slots=True)
class Service:
    """Times between arrivals, and those of a run, have exponential distributions; or are all the same (`even`)."""

    arrivals_per_s: float
    served_s: float
    places: int
    even: bool = False

    def arrivals(self, pictures: int, random: np.random.Generator) -> Seconds:
        mean_s = 1 / self.arrivals_per_s
        return np.cumsum(np.full(pictures, mean_s) if self.even else random.exponential(mean_s, pictures))

    def runs(self, count: int, random: np.random.Generator) -> Seconds:
        return np.full(count, self.served_s) if self.even else random.exponential(self.served_s, count)


def waited(service: Service, *, pictures: int, seed: int, outage: Outage | None = None) -> Waited:
    random = np.random.default_rng(seed)
    came = service.arrivals(pictures, random)
    queue = _Queue(service.places, outage, service.runs(pictures + service.places, random))
    back_at, caught_up_at = (outage.at_s + outage.for_s if outage else 0.0), math.inf
    for n, at in enumerate(came.tolist()):
        heapq.heappush(queue.events, (at, _Kind.CAME, n, 0))
    while queue.events:
        at = queue.step()
        if not queue.waiting and at >= back_at:
            caught_up_at = min(caught_up_at, at)
    waits = np.array([queue.began[n] for n in range(pictures)]) - came
    return Waited(float(waits.mean()), float(waits.max()), caught_up_at - back_at if outage else 0.0, queue.redone)


class _Queue:
    def __init__(self, places: int, outage: Outage | None, runs_s: Seconds) -> None:
        self.events: list[tuple[float, _Kind, int, int]] = []
        self.waiting = deque[int]()
        self.began: dict[int, float] = {}
        self.redone = 0
        self._places = places
        self._away = 0
        self._outage = outage
        self._runs_s = iter(runs_s.tolist())
        self._running: dict[int, int] = {}
        """By picture, its how many-th run: what a run that was broken off had coming is passed over."""
        self._run = 0
        if outage is not None:
            self.events = [(outage.at_s, _Kind.DOWN, 0, 0), (outage.at_s + outage.for_s, _Kind.UP, 0, 0)]

    def step(self) -> float:
        """The next event, and what can begin after it. Returns when."""
        at, kind, n, run = heapq.heappop(self.events)
        match kind:
            case _Kind.CAME:
                self.waiting.append(n)
            case _Kind.ENDED if self._running.get(n) == run:
                del self._running[n]
            case _Kind.UP:
                self._away = 0
            case _Kind.DOWN if self._outage is not None:
                self._lose(self._outage)
        while self.waiting and len(self._running) + self._away < self._places:
            self._begin(self.waiting.popleft(), at)
        return at

    def _begin(self, n: int, at: float) -> None:
        self._run += 1
        self.began[n], self._running[n] = at, self._run
        heapq.heappush(self.events, (at + next(self._runs_s), _Kind.ENDED, n, self._run))

    def _lose(self, outage: Outage) -> None:
        """Places go with what they had: as many of the full ones as of all, rounded up."""
        self._away = outage.places
        if outage.noticed_s is None:
            return
        for n in list(self._running)[: math.ceil(len(self._running) * outage.places / self._places)]:
            del self._running[n]
            self.redone += 1
            heapq.heappush(self.events, (outage.at_s + outage.noticed_s, _Kind.CAME, n, 0))


def caught_up_s(outage_s: float, arrivals_per_s: float, capacity_per_s: float) -> float:
    """From the end of an outage until nothing waits any more, pictures coming evenly: the longest wait is that of the outage's first one."""
    if arrivals_per_s >= capacity_per_s:
        return math.inf
    return outage_s * arrivals_per_s / (capacity_per_s - arrivals_per_s)
