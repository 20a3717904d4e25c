"""Searches are told to other services behind their answers, whatever becomes of one telling."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import cast

import numpy as np
import pytest
from structlog.testing import capture_logs

from core.errors import Unavailable
from searchsvc import searches
from searchsvc.feedback import FeedbackStore, RecentSearch
from searchsvc.searches import RecentSearches

SEARCH = RecentSearch(np.zeros(4, dtype=np.float32), (), (), 1)


class Shared:
    """Fails as it is told to, and then takes what comes."""

    is_shared = True

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.told: dict[str, RecentSearch] = {}
        self.asked = asyncio.Event()

    async def remember(self, found: Mapping[str, RecentSearch]) -> None:
        self.asked.set()
        if self.failures:
            raise self.failures.pop(0)
        self.told |= found

    async def forget_searches(self, most: int) -> None: ...


@pytest.mark.parametrize("failure", [ValueError("of our own"), Unavailable("the database is away")])
async def test_a_telling_that_fails_does_not_end_the_telling(failure: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "_SHARE_EVERY_S", 0.01)
    store = Shared(failure)
    with capture_logs() as logs:
        async with RecentSearches(cast("FeedbackStore", store)) as recent, asyncio.timeout(10):
            recent.remember("lost", SEARCH)
            await store.asked.wait()
            recent.remember("told", SEARCH)
            while not store.told:
                await asyncio.sleep(0.01)
    assert store.told == {"told": SEARCH}
    assert [event["log_level"] for event in logs] == ["info" if isinstance(failure, Unavailable) else "critical"]
