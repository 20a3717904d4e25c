"""The model service over HTTP, as an `Embedder`."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
from pydantic import BaseModel, ValidationError

from core import tracing
from core.errors import (
    ImageRejected,
    ImageSearchError,
    InvalidRequest,
    ModelCrashed,
    ModelUnavailable,
    ModelUnreachable,
    NoModel,
    Overloaded,
    Reason,
)
from core.schemas import BBox, EmbedTextRequest, Health, ImageAnalysis, ModelsInfo, Priority, SegmentMode, TextEmbeddings

AnswerT = TypeVar("AnswerT", bound=BaseModel)

_CONNECT_TIMEOUT_S = 3.0
_INFO_TIMEOUT_S = 5.0
_HEALTH_TIMEOUT_S = 2.0
_LONGEST_RETRY_AFTER_S = 3600.0

_GATEWAY_STATUSES = (502, 503, 504)
"""With which a proxy tells that the service is away, and nothing of what it was asked."""

_OF_ANOTHER_VERSION = {"extra_forbidden", "missing"}
"""What pydantic finds in an answer that has other fields than ours."""

PLAIN_PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAGUlEQVR42mNsaGhgIAUwMZAIRjWMahg6GgDJTAGg54KQ4AAAAABJRU5ErkJggg=="
)
"""Grey, of 16 x 16 pixels."""


class UnreadableAnswer(ModelUnreachable):
    """An answer came that cannot be read. Whether that is so of every answer, it does not tell."""


class ModelClient:
    """An async context manager. `timeout_s` bounds one analysis, its wait in the service's queue included."""

    def __init__(self, base_url: str, *, timeout_s: float = 150.0, connections: int = 64) -> None:
        self.base_url = base_url.rstrip("/")
        self._timeout_s = timeout_s
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._connections),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_TIMEOUT_S),
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def info(self, fingerprint: str | None = None) -> ModelsInfo:
        try:
            async with asyncio.timeout(_INFO_TIMEOUT_S):
                return await self._call("GET", "/v1/models", ModelsInfo, query=_of(fingerprint))
        except (ModelCrashed, TimeoutError):
            raise ModelUnreachable("the model service does not answer") from None

    async def health(self) -> Health:
        """What `/health/ready` says, whether it is ready or not. Raises ModelUnreachable."""
        try:
            async with asyncio.timeout(_HEALTH_TIMEOUT_S):
                return await self._call("GET", "/health/ready", Health, telling=(200, 503))
        except (ImageSearchError, TimeoutError):
            raise ModelUnreachable("the model service does not answer") from None

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        request = EmbedTextRequest(texts=tuple(texts), priority=priority, fingerprint=fingerprint)
        headers = {"Content-Type": "application/json"}
        try:
            body = request.model_dump_json().encode()
            return await self._call("POST", "/v1/embed-texts", TextEmbeddings, body=body, headers=headers)
        except ModelCrashed:
            raise ModelUnreachable("the model service does not answer") from None

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        query = {"segments": segments.value, "priority": priority.value, **_of(fingerprint)}
        if region is not None:
            query["region"] = ",".join(map(repr, region))
        try:
            return await self._analysis(image, query)
        except UnreadableAnswer as error:
            if priority is Priority.INGEST and await self._can_read_others(query):
                raise ModelCrashed(f"{error}; of another picture it answers well") from None
            raise

    async def _analysis(self, image: bytes, query: dict[str, str]) -> ImageAnalysis:
        headers = {"Content-Type": "application/octet-stream"}
        return await self._call("POST", "/v1/analyse", ImageAnalysis, body=image, query=query, headers=headers)

    async def _can_read_others(self, query: dict[str, str]) -> bool:
        """Whether the analysis of another picture comes well: one that nobody can read would keep all others waiting for ever."""
        try:
            await self._analysis(PLAIN_PICTURE, {name: value for name, value in query.items() if name != "region"})
        except ImageSearchError:
            return False
        return True

    async def _call(
        self,
        method: str,
        path: str,
        answer_type: type[AnswerT],
        *,
        body: bytes | None = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        telling: tuple[int, ...] = (200,),
    ) -> AnswerT:
        if self._session is None:
            raise ModelUnavailable("the model client is closed")
        try:
            async with self._session.request(
                method,
                self.base_url + path,
                data=body,
                params=query,
                headers={**(headers or {}), **tracing.outgoing()},
                allow_redirects=False,
            ) as answer:
                content = await answer.read()
                if answer.status in telling:
                    return answer_type.model_validate_json(content)
                raise await _error_of(answer)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError):
            raise ModelUnreachable("the model service cannot be reached") from None
        except (aiohttp.ClientError, TimeoutError):
            raise ModelCrashed("the model service broke off while it worked on this") from None
        except ValidationError as error:
            if any(one["type"] in _OF_ANOTHER_VERSION for one in error.errors(include_url=False, include_input=False)):
                raise ModelUnreachable("the model service answers in other fields: is it of another version?") from None
            raise UnreadableAnswer("the model service answers something unintelligible") from None


def _of(fingerprint: str | None) -> dict[str, str]:
    return {} if fingerprint is None else {"fingerprint": fingerprint}


async def _error_of(answer: aiohttp.ClientResponse) -> ImageSearchError:
    """The error that the service meant, from its problem document."""
    try:
        problem: dict[str, Any] = await answer.json(content_type=None)
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, LookupError, RecursionError, TypeError):  # as of a body in `core.web.read_json`, or it has other fields
        code, detail = "", f"the model service answers {answer.status}"
        if answer.status != 429:  # which a proxy in between says of too many requests
            return (ModelUnreachable if answer.status in _GATEWAY_STATUSES else UnreadableAnswer)(detail)
    if code in {reason.value for reason in Reason}:
        return ImageRejected(Reason(code), detail)
    if answer.status == 422:
        return InvalidRequest(detail, field="region")  # all else that could be wrong with a request is ours to get right
    if code == "internal_server_error":
        return ModelCrashed("the models failed on this input")
    given = answer.headers.get("Retry-After", "")
    after_s = min(float(given), _LONGEST_RETRY_AFTER_S) if given.isdecimal() else 5.0  # a proxy in between may send a date
    if answer.status == 429:
        return Overloaded(detail, retry_after_s=after_s)
    known = {"overloaded": Overloaded, "no_model": NoModel}
    return known.get(code, ModelUnavailable)(detail, retry_after_s=after_s)
