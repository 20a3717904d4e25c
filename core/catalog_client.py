"""The Catalog port over HTTP: the watcher of another process (`watcher.routes` is the other end)."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Annotated, Any, NoReturn, Self, TypeVar

import aiohttp
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from core import tracing
from core.errors import (
    CatalogUnavailable,
    Conflict,
    ImageRejected,
    InvalidRequest,
    ModelUnavailable,
    NoModel,
    NotFound,
    Overloaded,
    Reason,
)
from core.schemas import (
    FailurePage,
    ImageRecord,
    ImageStates,
    ImportAnswer,
    ImportRequest,
    IngestionStatus,
    ModelsAction,
    ModelsCourse,
    Segment,
    SegmentMode,
    Wire,
)

ModelT = TypeVar("ModelT", bound=BaseModel)

_SEGMENT_TIMEOUT_S = 120.0
_IMPORT_TIMEOUT_S = 120.0
MOST_HINTS = 200
MOST_STATES = 1000


class NoticeRequest(Wire):
    """Body of `POST /v1/notice`."""

    path: str = Field(min_length=1, max_length=4096)
    backfill: bool = False


class HintRequest(Wire):
    """Body of `POST /v1/hints`."""

    paths: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = Field(max_length=MOST_HINTS)
    backfill: bool = False


class HintAnswer(Wire):
    """How many of the paths will be looked at."""

    hints: int


class StatesRequest(Wire):
    """Body of `POST /v1/states`."""

    image_ids: tuple[str, ...] = Field(max_length=MOST_STATES)
    paths: tuple[str, ...] = Field(max_length=MOST_STATES)


class SegmentRequest(Wire):
    """Body of `POST /v1/images/{id}/segment`."""

    mode: SegmentMode


class ModelsRequest(Wire):
    """Body of `POST /v1/models`."""

    action: ModelsAction


SEGMENTS = TypeAdapter(list[Segment])
"""Answer of `POST /v1/images/{id}/segment`."""


class CatalogClient:
    """See `core.ports.Catalog`. An async context manager."""

    def __init__(self, url: str, *, timeout_s: float = 15.0) -> None:
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> IngestionStatus:
        return _parsed(IngestionStatus, await self._call("GET", "/v1/status"))

    async def image(self, image_id: str) -> ImageRecord:
        return _parsed(ImageRecord, await self._call("GET", f"/v1/images/{image_id}"))

    async def failures(self, *, limit: int = 100, offset: int = 0, ignored: bool = False) -> FailurePage:
        query = {"limit": str(limit), "offset": str(offset), "ignored": str(ignored).lower()}
        return _parsed(FailurePage, await self._call("GET", "/v1/failures", query=query))

    async def states(self, image_ids: Sequence[str], paths: Sequence[str] = ()) -> ImageStates:
        body = StatesRequest(image_ids=tuple(image_ids), paths=tuple(paths))
        return _parsed(ImageStates, await self._call("POST", "/v1/states", body=body))

    async def notice(self, path: str, *, backfill: bool = False) -> ImageRecord:
        return _parsed(ImageRecord, await self._call("POST", "/v1/notice", body=NoticeRequest(path=path, backfill=backfill)))

    async def hint(self, paths: Sequence[str], *, backfill: bool = False) -> int:
        each, taken = list(dict.fromkeys(paths)), 0
        for first in range(0, len(each), MOST_HINTS):
            body = HintRequest(paths=tuple(each[first : first + MOST_HINTS]), backfill=backfill)
            taken += _parsed(HintAnswer, await self._call("POST", "/v1/hints", body=body)).hints
        return taken

    async def delete(self, image_id: str) -> None:
        await self._call("DELETE", f"/v1/images/{image_id}")

    async def resegment(self, image_id: str, mode: SegmentMode) -> list[Segment]:
        body = SegmentRequest(mode=mode)
        answer = await self._call("POST", f"/v1/images/{image_id}/segment", body=body, timeout_s=_SEGMENT_TIMEOUT_S)
        try:
            return SEGMENTS.validate_json(answer)
        except ValidationError:
            raise _not_understood() from None

    async def take_embeddings(self, request: ImportRequest) -> ImportAnswer:
        return _parsed(ImportAnswer, await self._call("POST", "/v1/embeddings", body=request, timeout_s=_IMPORT_TIMEOUT_S))

    async def models(self) -> ModelsCourse:
        return _parsed(ModelsCourse, await self._call("GET", "/v1/models"))

    async def turn_models(self, action: ModelsAction) -> ModelsCourse:
        return _parsed(ModelsCourse, await self._call("POST", "/v1/models", body=ModelsRequest(action=action)))

    async def _call(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str] | None = None,
        body: Wire | None = None,
        timeout_s: float | None = None,
    ) -> bytes:
        if self._session is None:
            raise RuntimeError("the client was not entered")
        sent = body.model_dump_json().encode() if body is not None else None
        headers = {"Content-Type": "application/json", **tracing.outgoing()} if sent is not None else tracing.outgoing()
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s)
        try:
            async with self._session.request(
                method, self._url + path, params=query, data=sent, headers=headers, timeout=timeout
            ) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise CatalogUnavailable("the watcher does not answer") from None
        if answer.status >= 400:
            _raise(answer.status, content, answer.headers.get("Retry-After"))
        return content


def _parsed(model: type[ModelT], content: bytes) -> ModelT:
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise _not_understood() from None


def _not_understood() -> CatalogUnavailable:
    return CatalogUnavailable("the watcher's answer is not understood: are both of the same release?")


_PROBLEM = TypeAdapter(dict[str, Any])
_REASONS = {reason.value: reason for reason in Reason}


def _raise(status: int, content: bytes, retry_after: str | None) -> NoReturn:
    """Raise the error that the watcher meant."""
    try:
        problem = _PROBLEM.validate_json(content)
    except ValidationError:
        problem = {}
    detail, code = str(problem.get("detail", "the watcher refused")), str(problem.get("code", ""))
    if code in _REASONS:
        raise ImageRejected(_REASONS[code], detail)
    match status:
        case 404:
            raise NotFound(detail)
        case 409:
            raise Conflict(detail)
        case 422:
            raise InvalidRequest(detail, field=_field_of(problem))
        case _:
            pass
    retry_after_s = float(retry_after) if retry_after and retry_after.isdigit() else 5.0
    away = {"no_model": NoModel, "overloaded": Overloaded, "model_unavailable": ModelUnavailable}.get(code, CatalogUnavailable)
    raise away(detail, retry_after_s=retry_after_s)


def _field_of(problem: dict[str, Any]) -> str | None:
    errors = problem.get("errors")
    named = errors[0].get("field") if isinstance(errors, list) and errors and isinstance(errors[0], dict) else None
    return str(named) if named is not None else None
