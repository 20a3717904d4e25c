"""The `Embedder` port over HTTP: what the model service answers, as the errors that its callers decide by."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from core.errors import (
    ImageRejected,
    ImageSearchError,
    InvalidRequest,
    ModelCrashed,
    ModelUnavailable,
    NoModel,
    Overloaded,
    Reason,
    Unavailable,
)
from core.schemas import EmbedTextRequest, ImageAnalysis, ModelsInfo, Priority, SegmentMode, TextEmbeddings

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_INFO_TIMEOUT_S = 5.0
_CONNECT_TIMEOUT_S = 5.0


class ModelClient:
    """An async context manager.

    `timeout_s` is the longest that one picture may take; keep it above the model service's `request_timeout_s`, which answers
    first unless it hangs.
    """

    def __init__(self, base_url: str, *, timeout_s: float = 150.0) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # No limit: the service admits or refuses, and a query must not wait here behind pictures. No connection is used twice:
        # one that a restart had closed in between would look like a crash over the picture that is sent on it.
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True), trust_env=False)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def info(self) -> ModelsInfo:
        """Raises ModelUnavailable."""
        return await self._asked("GET", "/v1/models", ModelsInfo, timeout_s=_INFO_TIMEOUT_S)

    async def embed_texts(self, texts: Sequence[str], *, priority: Priority = Priority.QUERY) -> TextEmbeddings:
        """Raises NoModel, Overloaded, ModelUnavailable, and InvalidRequest for texts that the wire does not take."""
        try:
            wanted = EmbedTextRequest(texts=tuple(texts), priority=priority)
        except ValidationError as error:
            raise InvalidRequest(error.errors()[0]["msg"], field="texts") from None
        body = wanted.model_dump_json().encode()
        return await self._asked("POST", "/v1/embed-texts", TextEmbeddings, body=body, content_type="application/json")

    async def analyse(
        self, image: bytes, *, segments: SegmentMode = SegmentMode.STANDARD, priority: Priority = Priority.INGEST
    ) -> ImageAnalysis:
        """Raises ImageRejected, NoModel, Overloaded, ModelUnavailable, ModelCrashed."""
        path = f"/v1/analyse?segments={segments.value}&priority={priority.value}"
        return await self._asked("POST", path, ImageAnalysis, body=image, content_type="application/octet-stream", at_stake=True)

    async def _asked(
        self,
        method: str,
        path: str,
        answer: type[AnswerT],
        *,
        body: bytes | None = None,
        content_type: str | None = None,
        timeout_s: float | None = None,
        at_stake: bool = False,
    ) -> AnswerT:
        """One round trip. `at_stake`: what ends it after the body was on its way counts against the body."""
        if self._session is None:
            raise RuntimeError("the client is used outside of its context")
        timeout = aiohttp.ClientTimeout(total=timeout_s or self._timeout_s, sock_connect=_CONNECT_TIMEOUT_S)
        headers = {"Content-Type": content_type} if content_type else {}
        try:
            async with self._session.request(
                method, self._base_url + path, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                content = await response.read()
                status, retry_after = response.status, response.headers.get("Retry-After")
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise ModelUnavailable("the model service does not answer") from None
        except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            raise _broken_off(error, at_stake=at_stake) from error
        if status == 200:
            return _parsed(answer, content)
        raise _error_of(status, _problem(content), retry_after, at_stake=at_stake)


def _broken_off(error: Exception, *, at_stake: bool) -> Unavailable:
    if at_stake:
        what = "did not answer in time" if isinstance(error, TimeoutError) else "broke off"
        return ModelCrashed(f"the model service {what} while it had this picture")
    return ModelUnavailable("the model service does not answer")


def _parsed(answer: type[AnswerT], content: bytes) -> AnswerT:
    try:
        return answer.model_validate_json(content)
    except ValidationError:
        raise ModelUnavailable("the model service answers what this version does not understand") from None


class _Problem(BaseModel):
    """What we read of a problem document."""

    code: str
    detail: str


def _problem(content: bytes) -> _Problem:
    try:
        return _Problem.model_validate_json(content)
    except ValidationError:
        return _Problem(code="", detail="the model service answers with an error")


def _error_of(status: int, problem: _Problem, retry_after: str | None, *, at_stake: bool) -> ImageSearchError:
    code, detail = problem.code, problem.detail
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else 5.0
    if status == 503 and code in {"no_model", "overloaded"}:
        return {"no_model": NoModel, "overloaded": Overloaded}[code](detail, retry_after_s=seconds)
    if 400 <= status < 500 and code in set(Reason):
        return ImageRejected(Reason(code), detail)
    if status == 422:
        return InvalidRequest(detail)
    if status == 500 and at_stake:
        return ModelCrashed("the model service failed on this picture")
    return ModelUnavailable(detail, retry_after_s=seconds)
