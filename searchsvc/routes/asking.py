"""What routes ask of a request before they do anything: whether it may, and what its query says."""

from __future__ import annotations

import re
from typing import TypeVar

from aiohttp import hdrs, web

from core.errors import InvalidRequest
from searchsvc.services import SERVICES

DefaultT = TypeVar("DefaultT", int, None)

_NUMBER = re.compile(r"[0-9]{1,15}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def check_may_write(request: web.Request) -> None:
    """Raises Unauthorized."""
    headers = request.headers
    request.app[SERVICES].access.check(
        authorization=headers.get(hdrs.AUTHORIZATION), origin=headers.get(hdrs.ORIGIN), host=request.host
    )


def check_may_read(request: web.Request) -> None:
    """What people looked for, and what was found in their pictures, is nobody else's business: as writing, and on this machine by its own
    names alone. Raises Unauthorized."""
    headers = request.headers
    request.app[SERVICES].access.check_reading(
        authorization=headers.get(hdrs.AUTHORIZATION), origin=headers.get(hdrs.ORIGIN), host=request.host
    )


def number(request: web.Request, name: str, *, default: DefaultT, least: int, most: int) -> int | DefaultT:
    """Raises InvalidRequest."""
    asked = request.query.get(name)
    if asked is None:
        return default
    if not _NUMBER.fullmatch(asked) or not least <= int(asked) <= most:
        raise InvalidRequest(f"{name}: must be a whole number from {least} to {most}", field=name)
    return int(asked)


def truth(request: web.Request, name: str) -> bool:
    """Raises InvalidRequest."""
    asked = request.query.get(name, "false").lower()
    if asked not in _TRUTH:
        raise InvalidRequest(f"{name}: must be true or false", field=name)
    return _TRUTH[asked]
