"""How often one client may ask: a bucket of tokens for each, in a table that no flood of addresses makes grow."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import StrEnum

from core.errors import TooManyRequests

_BURST_S = 20.0
"""How long a client may have asked nothing, to ask at once what it then may."""
_MOST_BUCKETS = 20_000
"""About 4 MB. Who is pushed out by others begins anew with a full bucket."""


class Kind(StrEnum):
    """What is counted apart."""

    SEARCH = "search"
    RATING = "rating"
    WRITING = "writing"


class RateLimits:
    """`per_s` is how many a client may ask for in the long run. `clock` gives seconds."""

    def __init__(
        self, per_s: Mapping[Kind, float], *, most_buckets: int = _MOST_BUCKETS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_s = per_s
        self._most_buckets = most_buckets
        self._clock = clock
        self._levels: OrderedDict[tuple[Kind, str], tuple[float, float]] = OrderedDict()
        """Tokens that were left, and when; the least lately used first."""

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, kind: Kind, client: str) -> None:
        """Count a request. Raises TooManyRequests."""
        now, per_s = self._clock(), self._per_s[kind]
        most = max(1.0, per_s * _BURST_S)
        left, at = self._levels.pop((kind, client), (most, now))
        left = min(most, left + (now - at) * per_s)
        self._levels[kind, client] = (left - 1 if left >= 1 else left), now
        if len(self._levels) > self._most_buckets:
            self._levels.popitem(last=False)
        if left < 1:
            raise TooManyRequests("too many requests from one client: slow down", retry_after_s=(1 - left) / per_s)
