"""The clock that a peer's loop is timed by, as ingestion here is: from when a fifth of the pictures is done. Knows no library."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

WARM_UP = 0.2
"""Share of the pictures before the clock starts: caches fill, threads and workers are there."""


@dataclass(slots=True)
class Clock:
    """Is told of each batch as it is done."""

    expected: int
    now: Callable[[], float] = time.perf_counter
    told: list[tuple[float, int]] = field(default_factory=list)

    def done(self, count: int) -> None:
        self.told.append((self.now(), count + (self.told[-1][1] if self.told else 0)))

    def per_s(self) -> float:
        """Raises RuntimeError when not every picture was done, or all at once."""
        total = self.told[-1][1] if self.told else 0
        if total != self.expected:
            raise RuntimeError(f"{total} of {self.expected} pictures were done")
        first_at, first = next(one for one in self.told if one[1] >= WARM_UP * total)
        last_at, last = self.told[-1]
        if last == first:
            raise RuntimeError(f"all {total} pictures were one batch: nothing to time")
        return (last - first) / (last_at - first_at)
