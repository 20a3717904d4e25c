"""One conversation with the service, told without saying whether it blocks or awaits.

An operation is a generator: it yields what it wants done (`Send`, `Pause`, `Work`) and is resumed with the outcome. `Client` does it
with blocking calls, `AsyncClient` with awaited ones; everything else, retries included, stands once. httpx's own `Auth` is made so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx

from imagesearch.errors import ImageSearchError, Refused, Unavailable, Unintelligible, Unreachable, error_of

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class Send:
    """A request; its outcome is a response, what httpx raised, or Refused where it cannot even be written."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, object] | None = None
    form: Mapping[str, str] | None = None
    files: tuple[tuple[str, bytes], ...] = ()
    """Names and contents; they make the request a multipart form together with `form`."""
    accept: str = "application/json"


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Work:
    """Something that touches the disk, and so must not hold an event loop; its outcome is what it returns."""

    call: Callable[[], object]


Steps = Generator[Send | Pause | Work, Any, ResultT]


@dataclass(frozen=True, slots=True)
class Retrying:
    """How often a refusal for now (429, 503) is tried again, and how long that may take."""

    attempts: int = 4
    """The first one included; 1 never tries again."""
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    """A `Retry-After` beyond it is told to the caller at once instead."""
    on_pause: Callable[[Unavailable, float], None] | None = None
    """Told before each pause: why, and for how many seconds."""

    def pause_s(self, attempt: int, error: ImageSearchError) -> float | None:
        """How long to wait after this attempt (from 1); None when the error is to be raised."""
        if attempt >= self.attempts or error.status not in {429, 503} or error.code == "no_model":
            return None
        backed_off_s = self.first_pause_s * 2 ** min(attempt - 1, 64) * random.uniform(0.75, 1.25)  # noqa: S311 - spreads callers out
        pause_s = max(error.retry_after_s or 0.0, min(backed_off_s, self.longest_pause_s))
        return None if pause_s > self.longest_pause_s else pause_s


def exchange(request: Send, retrying: Retrying) -> Steps[httpx.Response]:
    """Send, and again while that is refused for now. Raises ImageSearchError for everything but a 2xx.

    Safe for writing as well: 429 and 503 refuse before anything is done. What broke off midway is not repeated.
    """
    attempt = 1
    while True:
        outcome: httpx.Response | httpx.HTTPError | Refused = yield request
        if isinstance(outcome, Refused):
            raise outcome
        if isinstance(outcome, httpx.HTTPError):
            raise _unreachable(outcome) from outcome
        if outcome.is_success:
            return outcome
        error = error_of(outcome)
        pause_s = retrying.pause_s(attempt, error)
        if pause_s is None or not isinstance(error, Unavailable):
            raise error
        if retrying.on_pause is not None:
            retrying.on_pause(error, pause_s)
        yield Pause(pause_s)
        attempt += 1


def _unreachable(error: httpx.HTTPError) -> ImageSearchError:
    origin = f"{error.request.url.scheme}://{error.request.url.netloc.decode()}"
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return Unreachable(f"nobody answers at {origin}: is the service running there?")
        case httpx.TimeoutException():
            return Unreachable(f"{origin} did not answer in time")
        case httpx.UnsupportedProtocol() | httpx.DecodingError():
            return Unintelligible(f"{origin}: {error}")
        case _:
            return Unreachable(f"{origin} broke off")


def work(call: Callable[[], ResultT]) -> Steps[ResultT]:
    """Have something done off the loop."""
    done: ResultT = yield Work(call)
    return done
