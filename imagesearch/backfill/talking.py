"""Asking the service for what it may refuse for now: at the pace that it takes, for as long as patience lasts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from imagesearch.backfill.pace import Pace
from imagesearch.errors import Unavailable

T = TypeVar("T")

_MOST_FAULTS = 5
_AWAY = {429, 502, 503, 504, 507}


class KeepsFailing(Unavailable):
    """It failed time after time while others did not: it is about this very request."""


async def patiently(pace: Pace, call: Callable[[], Awaitable[T]], *, counted: bool = True) -> T:
    """Raises OutOfPatience, KeepsFailing, and whatever is not Unavailable.

    A refusal before work (429, 503, 507) is nobody's fault. What broke there, or broke off, speaks against this request where others
    were taken meanwhile.
    """
    faults, first_at = 0, None
    while True:
        async with pace.place(counted=counted) as began_at:
            first_at = began_at if first_at is None else first_at
            try:
                answer = await call()
            except Unavailable as error:
                faults += error.status not in _AWAY and (error.status is not None or pace.well_at > first_at)
                if faults >= _MOST_FAULTS:
                    raise KeepsFailing(str(error), code=error.code or "unreachable", status=error.status) from error
                pace.refused(error, began_at)
            else:
                pace.well()
                return answer
