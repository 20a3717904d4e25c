"""A circuit breaker: whom to leave alone, and for how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

OPENS_AFTER = 5
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
"""A trial costs its query a moment; one that is whole again and not asked may cost others their answer."""


class Circuit(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """Closed until so many failures come in a row; then open for a pause; then half-open, for one trial at a time.

    A trial that fails opens it again, for twice the pause; one that succeeds closes it. Each pause is shortened by up to half, by
    chance, so that many callers do not try at the same moment.
    """

    def __init__(self, *, clock: Callable[[], float], rng: random.Random) -> None:
        self._clock = clock
        self._rng = rng
        self._run = 0
        self._pause_s = FIRST_PAUSE_S
        self._open_until: float | None = None
        self._on_trial = False

    @property
    def circuit(self) -> Circuit:
        if self._open_until is None:
            return Circuit.CLOSED
        return Circuit.OPEN if self._clock() < self._open_until else Circuit.HALF_OPEN

    @property
    def admits(self) -> bool:
        """Whether a request may begin now."""
        return self._open_until is None or (not self._on_trial and self._clock() >= self._open_until)

    @property
    def opens_in_s(self) -> float:
        """Until the next trial; 0 where it admits now."""
        return 0.0 if self._open_until is None else max(0.0, self._open_until - self._clock())

    def begin(self) -> bool:
        """A request begins. Returns whether it is a trial, which its end is to be told with; one that was not admitted is none."""
        trial = self._open_until is not None and self.admits
        self._on_trial = self._on_trial or trial
        return trial

    def succeeded(self, *, trial: bool) -> None:
        """It answered. What began before the circuit opened does not close it."""
        self._run = 0
        if trial:
            self._on_trial = False
            self._open_until = None
            self._pause_s = FIRST_PAUSE_S

    def failed(self, *, trial: bool) -> None:
        """It did not. What began before the circuit opened does not prolong the pause."""
        if trial:
            self._on_trial = False
            self._open()
        elif self._open_until is None:
            self._run += 1
            if self._run >= OPENS_AFTER:
                self._open()

    def abandoned(self, *, trial: bool) -> None:
        """Nobody waited for the end: nothing is known of it."""
        self._on_trial = self._on_trial and not trial

    def came_back(self) -> None:
        """It was seen to be whole again: the next trial may be at once."""
        if self._open_until is not None:
            self._open_until = min(self._open_until, self._clock())

    def _open(self) -> None:
        self._run = 0
        self._open_until = self._clock() + self._pause_s * self._rng.uniform(0.5, 1.0)
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
