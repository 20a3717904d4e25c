"""While something that ingestion needs is away: one log line at its start, one at its end, and growing pauses in between."""

from __future__ import annotations

import random
import time

import structlog

from core.errors import ModelUnavailable, NoModel, Overloaded, Unavailable

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.25


class Outage:
    """Open from the first `Unavailable` until the next success."""

    def __init__(self, longest_pause_s: float) -> None:
        self._longest_pause_s = longest_pause_s
        self._pause_s = _FIRST_PAUSE_S
        self._since: float | None = None
        self.waiting_for: str | None = None

    @property
    def is_open(self) -> bool:
        return self._since is not None

    def note(self, error: Unavailable) -> float:
        """Something is away. Returns the seconds to wait before the next attempt."""
        if isinstance(error, Overloaded):  # busy with queries, and that is as it should be
            return min(error.retry_after_s, self._longest_pause_s)
        if self._since is None or str(error) != self.waiting_for:
            loading = isinstance(error, ModelUnavailable) and not isinstance(error, NoModel)  # as at every start
            level = log.info if loading else log.warning
            level("ingestion_paused", waiting_for=str(error), error=type(error).__name__)
        self._since = self._since if self._since is not None else time.monotonic()
        self.waiting_for = str(error)
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, self._longest_pause_s)
        return pause_s * random.uniform(0.75, 1)  # noqa: S311 - jitter

    def over(self) -> None:
        """It worked again."""
        if self._since is not None:
            log.info("ingestion_resumed", after_s=round(time.monotonic() - self._since, 1))
        self._since = None
        self.waiting_for = None
        self._pause_s = _FIRST_PAUSE_S
