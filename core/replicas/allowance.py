"""How many requests may be made beside those that are asked for."""

from __future__ import annotations

import time
from collections.abc import Callable


class Allowance:
    """A share of the requests, and `per_s` besides; what is not taken is kept, up to `most`.

    As many services are asked again, an overload that makes all of them fail is multiplied by 1 + `share` at most.
    """

    def __init__(
        self, *, share: float, most: float, left: float, per_s: float = 0.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._share = share
        self._most = most
        self._per_s = per_s
        self._clock = clock
        self._left = left
        self._at = clock()

    def note_request(self) -> None:
        self._left = min(self._most, self._left + self._share)

    def take(self) -> bool:
        """One more request; False where it may not be made."""
        now = self._clock()
        self._left, self._at = min(self._most, self._left + self._per_s * (now - self._at)), now
        if self._left < 1:
            return False
        self._left -= 1
        return True
