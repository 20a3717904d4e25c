"""aiohttp ground work shared by the services: ids and traces, one log line a request, errors as problems, JSON in and out.

Domain modules raise `core.errors`; `core.problems` alone knows what HTTP makes of them.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog
from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from core import tracing
from core.connections import Connection
from core.errors import (
    ImageSearchError,
    InvalidRequest,
    MalformedRequest,
    Overloaded,
    PayloadTooLarge,
    StalledRequest,
    UnsupportedMediaType,
)
from core.gate import Gate
from core.headers import add_security_headers
from core.metrics import HttpMetrics
from core.problems import problem, problem_of, problem_of_http, status_of

log = structlog.get_logger()

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ModelT = TypeVar("ModelT", bound=BaseModel)

_REQUEST_ID_HEADER = "X-Request-ID"
_REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id", str)
_SPAN: web.RequestKey[tracing.Span] = web.RequestKey("span", tracing.Span)
_BEGUN: web.RequestKey[tuple[int, float]] = web.RequestKey("begun", tuple)
_TOLD_ELSEWHERE: web.RequestKey[bool] = web.RequestKey("told_elsewhere", bool)
_WATCHED = ("/health", "/metrics")
_CALLER_LEFT = 499
_READING = {hdrs.METH_GET, hdrs.METH_HEAD}
_LONGEST_PATH = 200
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)*")
"""As JSON Web Tokens begin: somebody put one into the address."""
_USABLE_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id_of(request: web.Request) -> str:
    return request[_REQUEST_ID]


def _route_of(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource else "unmatched"


def make_application(
    service: str, registry: CollectorRegistry, *, gate: Gate, client_max_size: int, routine: tuple[str, ...] = ()
) -> web.Application:
    """An application with what all services have in common: a gate, one error shape, ids, traces, metrics, and one log line a request.

    What is read from routes that begin with one of `routine` is asked for by programs and pages on their own: it is logged if it fails.
    """
    middleware = _outermost(HttpMetrics(registry, service), gate, routine=routine)
    app = web.Application(middlewares=[middleware], client_max_size=client_max_size)
    app.on_response_prepare.append(_complete_headers)
    return app


def _outermost(metrics: HttpMetrics, gate: Gate, *, routine: tuple[str, ...]) -> Any:
    """Binds request id and span, turns every error into a problem document, writes the one line a request."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        span, request_id = _named(request)
        started = time.perf_counter()
        status = None
        connection = request.protocol if isinstance(request.protocol, Connection) else None  # tests have others
        if connection is not None:
            connection.request_began(request)
        with tracing.within(span), structlog.contextvars.bound_contextvars(request_id=request_id), metrics.in_flight():
            try:
                response = await _answer(request, handler, gate, request_id)
                status = response.status
                if not response.prepared:
                    if _BEGUN in request and request.transport is not None:
                        request.transport.abort()  # another was being sent, whose rest this is not: the caller must see it broken
                    if connection is not None and connection.is_to_close:
                        response.force_close()
                return response
            finally:
                if connection is not None:
                    connection.request_ended()
                ended, route = time.perf_counter(), _route_of(request)
                begun_as, begun_at = request.get(_BEGUN, (_CALLER_LEFT, ended))  # one who leaves a stream has got an answer
                status = status or begun_as
                metrics.observe(request.method, route, status, begun_at - started)
                told_at = _told_at(request, route, status, routine)
                ms = round((ended - started) * 1000, 1)
                told_at("request_answered", method=request.method, route=route, status=status, ms=ms, **_also(request, span))

    return middleware


def _told_at(request: web.Request, route: str, status: int, routine: tuple[str, ...]) -> Callable[..., None]:
    """Whether somebody who reads the log wants to know."""
    unasked = route.startswith(routine) and request.method in _READING and status < 400
    told_elsewhere = request.get(_TOLD_ELSEWHERE, False) and status < 500
    level: Callable[..., None] = log.debug if unasked or told_elsewhere or route.startswith(_WATCHED) else log.info
    return level


def note_told_elsewhere(request: web.Request) -> None:
    """What becomes of this request is told by a line of the caller's own, unless it fails by a fault of this service."""
    request[_TOLD_ELSEWHERE] = True


def _also(request: web.Request, span: tracing.Span) -> dict[str, str]:
    """What only some requests have to tell: who called, and what nothing stands at."""
    told = {"parent_span_id": span.parent_span_id} if span.parent_span_id else {}
    path = _TOKEN.sub("(token)", request.path)[:_LONGEST_PATH]
    return told if request.match_info.route.resource else {**told, "path": path}


def _named(request: web.Request) -> tuple[tracing.Span, str]:
    """The request's span, and its id: what the caller calls it, else the id of the trace, which then finds it in every service."""
    headers = request.headers
    span = tracing.continued(headers.getall(tracing.TRACEPARENT, []), headers.getall(tracing.TRACESTATE, []))
    offered = headers.get(_REQUEST_ID_HEADER, "")
    request[_SPAN] = span
    request[_REQUEST_ID] = offered if _USABLE_REQUEST_ID.fullmatch(offered) else span.trace_id
    return span, request[_REQUEST_ID]


async def _complete_headers(request: web.Request, response: web.StreamResponse) -> None:
    """For `on_response_prepare`: the moment at which an answer begins, streams included."""
    add_security_headers(response)
    request[_BEGUN] = response.status, time.perf_counter()
    if _SPAN in request:
        response.headers[_REQUEST_ID_HEADER] = request[_REQUEST_ID]
        response.headers[tracing.TRACERESPONSE] = request[_SPAN].header


async def _answer(request: web.Request, handler: Handler, gate: Gate, request_id: str) -> web.StreamResponse:
    try:
        gate.check(request.method, request.headers)
        return await _handled(request, handler)
    except ImageSearchError as error:
        if status_of(error) >= 500 and not isinstance(
            error, Overloaded
        ):  # which the line of the request tells; there are thousands
            log.warning("request_refused", error=type(error).__name__, detail=str(error))
        answer = problem_of(error, request_id)
        if isinstance(error, StalledRequest) or request.content.exception() is not None:  # nothing that follows it would be heard
            answer.force_close()
        return answer
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return problem_of_http(error, request_id)
    except (TimeoutError, ConnectionResetError) as error:
        log.warning("request_broken_off", error=type(error).__name__)
        return problem(503, "the request could not be completed in time", request_id=request_id, headers={"Retry-After": "5"})
    except Exception:
        log.exception("request_failed")
        return problem(500, "something went wrong on our side; the request id finds it in the log", request_id=request_id)


async def _handled(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.RequestPayloadError:
        raise MalformedRequest("the body is not what its headers say: it cannot be decoded") from None


def parse(model: type[ModelT], document: object) -> ModelT:
    """Validate a decoded JSON document. Raises InvalidRequest naming the first offending field."""
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        told = _told(first)
        raise InvalidRequest(f"{field}: {told}" if field else told, field=field or None) from None


def _told(error: ErrorDetails) -> str:
    """What is wrong, in words of JSON where pydantic has those of Python."""
    match error["type"]:
        case "model_type" | "dict_type" | "model_attributes_type":
            return "Input should be an object"
        case "too_short" | "too_long" if isinstance(error["input"], str):
            return error["msg"].replace(" item", " character").replace("Value", "Text").replace(" after validation", "")
        case _:
            return error["msg"]


async def read_json(request: web.Request, model: type[ModelT]) -> ModelT:
    """Read and validate a JSON body. Raises UnsupportedMediaType, MalformedRequest, InvalidRequest, PayloadTooLarge."""
    if request.content_type != "application/json":
        raise UnsupportedMediaType("send the request as application/json")
    if (request.content_length or 0) > request.client_max_size:  # aiohttp would first read as much as it may
        raise PayloadTooLarge("the request is larger than allowed")
    try:
        document = json.loads(await request.text())
    except web.HTTPRequestEntityTooLarge:
        raise PayloadTooLarge("the request is larger than allowed") from None
    except (ValueError, LookupError, RecursionError):  # bad JSON, bad UTF-8, an unknown charset, or brackets without end
        raise MalformedRequest("the body is not valid JSON") from None
    return parse(model, document)


def json_answer(document: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Answer with a wire model."""
    return web.Response(text=document.model_dump_json(), status=status, content_type="application/json", headers=headers)


def metrics_route(registry: CollectorRegistry) -> Handler:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={hdrs.CONTENT_TYPE: CONTENT_TYPE_LATEST})

    return metrics
