"""What a call can end in; each class is a decision of the caller.

ImageSearchError
├── Unavailable         try again later: refused before work (429, 503), or something broke there (other 5xx)
│   └── Unreachable     ... nobody answered at that address, or not in time
├── Refused             don't repeat it as it is (4xx)
│   ├── Unauthorized    401, 403: the key or the token is missing, wrong, or expired
│   ├── NotFound        404
│   └── Conflict        409: it was done already, or is not ready for this
└── Unintelligible      an answer that this release does not understand; perhaps no image search at all
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil

import httpx
from pydantic import ValidationError

from searchsvc.schemas import Problem


class ImageSearchError(Exception):
    """Root of everything that the client raises on purpose. `str(error)` is the service's own word, fit to be shown."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        field: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        """For programs, and stable: `overloaded`, `truncated`, ...; as `docs/reference/api.md` lists them."""
        self.status = status
        self.request_id = request_id
        """Finds the request in the service's log."""
        self.retry_after_s = retry_after_s
        self.field = field
        """The offending part of the request, where there is one."""


class Unavailable(ImageSearchError):
    """The same call may succeed later."""


class Unreachable(Unavailable):
    """Nobody answered, or not in time. Whether the request was carried out is not known."""


class Refused(ImageSearchError):
    """The request is at fault; repeating it as it is cannot help."""


class Unauthorized(Refused):
    """The key or the token is missing, wrong, or expired."""


class NotFound(Refused):
    """There is no such thing there."""


class Conflict(Refused):
    """It was done already, or what it is about is not ready for it."""


class Unintelligible(ImageSearchError):
    """The answer is not one of this release's."""


_BY_STATUS: dict[int, type[Refused]] = {401: Unauthorized, 403: Unauthorized, 404: NotFound, 409: Conflict}


def error_of(answer: httpx.Response) -> ImageSearchError:
    """The error that the service meant, from its problem document."""
    status = answer.status_code
    try:
        problem = Problem.model_validate_json(answer.content, extra="ignore")
    except ValidationError:
        return _without_document(answer)
    kind = Unavailable if status == 429 or status >= 500 else _BY_STATUS.get(status, Refused)
    return kind(
        problem.detail,
        code=problem.code,
        status=status,
        request_id=problem.request_id,
        retry_after_s=retry_after_s(answer.headers.get("Retry-After")),
        field=problem.errors[0].field if problem.errors else None,
    )


def _without_document(answer: httpx.Response) -> ImageSearchError:
    """A proxy in between answers in its own words."""
    status = answer.status_code
    if status == 429 or status >= 500:
        after_s = retry_after_s(answer.headers.get("Retry-After"))
        return Unavailable(f"the service answers {status} {answer.reason_phrase}", status=status, retry_after_s=after_s)
    if status == 413:  # which is about this request, whoever says it
        return Refused("larger than what is let through on the way to the service", code="too_many_bytes", status=status)
    return Unintelligible(f"{answer.request.url} answers {status}, and not as an image search does", status=status)


def retry_after_s(given: str | None) -> float | None:
    """The header's seconds, also where it is a date; None where it is absent or means nothing."""
    if given is None:
        return None
    if given.isdecimal():
        return float(given)
    try:
        at = parsedate_to_datetime(given)
    except (ValueError, OverflowError):
        return None
    return float(max(0, ceil((at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)).total_seconds())))
