"""RFC 9457 problem documents: the one shape of every error, and which HTTP status each error of ours becomes."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Any

from aiohttp import web

from core.errors import (
    Conflict,
    Forbidden,
    ImageRejected,
    ImageSearchError,
    InvalidRequest,
    MalformedRequest,
    NoModel,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Reason,
    StalledRequest,
    StorageFull,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)

PROBLEM_JSON = "application/problem+json"

_STATUS: dict[type[ImageSearchError], int] = {
    MalformedRequest: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    StalledRequest: 408,
    Conflict: 409,
    PayloadTooLarge: 413,
    UnsupportedMediaType: 415,
    InvalidRequest: 422,
    TooManyRequests: 429,
    Unavailable: 503,
    StorageFull: 507,
}
_REASON_STATUS = {Reason.TOO_MANY_BYTES: 413, Reason.NOT_AN_IMAGE: 415, Reason.UNSUPPORTED_FORMAT: 415, Reason.EMPTY_FILE: 422}


def problem(
    status: int, detail: str, *, request_id: str, code: str | None = None, headers: dict[str, str] | None = None, **extra: Any
) -> web.Response:
    """An RFC 9457 problem document. `code` is stable for programs; `detail` is for people."""
    title = HTTPStatus(status).phrase
    document = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code or title.lower().replace(" ", "_").replace("-", "_"),
        "request_id": request_id,
        **extra,
    }
    return web.Response(body=json.dumps(document).encode(), status=status, content_type=PROBLEM_JSON, headers=headers)


def status_of(error: ImageSearchError) -> int:
    """The HTTP status that an error of ours becomes."""
    if isinstance(error, ImageRejected):
        return _REASON_STATUS.get(error.reason, 422)
    return next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 500)


def problem_of(error: ImageSearchError, request_id: str) -> web.Response:
    status = status_of(error)
    headers: dict[str, str] = {}
    extra: dict[str, Any] = {}
    code: str | None = None
    match error:
        case Unavailable():
            headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
            code = {NoModel: "no_model", Overloaded: "overloaded"}.get(type(error))
        case ImageRejected():
            code = error.reason.value
        case Unauthorized():
            headers["WWW-Authenticate"] = "Bearer"
        case InvalidRequest(field=str(field)):
            extra["errors"] = [{"field": field, "message": str(error)}]
        case _:
            pass
    return problem(status, str(error), request_id=request_id, code=code, headers=headers, **extra)


def problem_of_http(error: web.HTTPException, request_id: str) -> web.Response:
    headers = {name: error.headers[name] for name in ("Allow", "Retry-After", "Location") if name in error.headers}
    detail = {
        404: "there is nothing at this address",
        405: "this address does not know that method",
        413: "the request is larger than allowed",
    }.get(error.status, error.reason)
    return problem(error.status, detail, request_id=request_id, headers=headers)
