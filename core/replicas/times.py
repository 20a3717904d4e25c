"""How long answers took lately."""

from __future__ import annotations

from collections import deque

_KEPT = 200
_ENOUGH = 20
_RECKONED_EVERY = 10


class RecentTimes:
    """The last few hundred times of one kind of request, in seconds."""

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=_KEPT)
        self._noted = 0
        self._p95: float | None = None

    def note(self, seconds: float) -> None:
        self._kept.append(seconds)
        self._noted += 1
        if self._noted >= _ENOUGH and self._noted % _RECKONED_EVERY == 0:
            self._p95 = sorted(self._kept)[int(0.95 * len(self._kept))]

    @property
    def p95_s(self) -> float | None:
        """What 19 of 20 took less than; None until there were enough."""
        return self._p95
