"""The database's clock, as read here: leases of several machines are compared by it, and no machine's own clock need be right."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from core.sql.connection import Connection

_GOOD_FOR_S = 60.0
_TOLERANCE_S = 1.0
_LOOKS = 3


class DatabaseClock:
    """Right to half of a round trip. It goes on by this machine's steady clock between two looks at the database's."""

    def __init__(self, *, steady: Callable[[], float] = time.monotonic, own: Callable[[], float] = time.time) -> None:
        self._steady = steady
        self._own = own
        self._ahead_s = own() - steady()
        self._own_ahead_s = math.nan
        self._looked_at = -math.inf

    def now(self) -> float:
        """Unix seconds."""
        return self._steady() + self._ahead_s

    def doubt(self) -> None:
        """What answers next may be another server."""
        self._looked_at = -math.inf

    def follow(self, connection: Connection) -> None:
        """Look at the database's clock if the last look is long ago, or if this machine slept meanwhile."""
        own_ahead_s = self._own() - self._steady()
        slept = abs(own_ahead_s - self._own_ahead_s) > _TOLERANCE_S
        if self._steady() - self._looked_at > _GOOD_FOR_S or slept:
            _, self._ahead_s = min(self._look(connection) for _ in range(_LOOKS))
            self._looked_at, self._own_ahead_s = self._steady(), own_ahead_s

    def _look(self, connection: Connection) -> tuple[float, float]:
        """How long it took, and how far the database's clock was ahead of the steady one half-way."""
        before = self._steady()
        (there,) = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        took_s = self._steady() - before
        return took_s, there - before - took_s / 2
