"""The one error shape, and what each error of ours becomes over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import BaseModel, ConfigDict
from structlog.testing import capture_logs

from core import web as ours
from core.errors import (
    CatalogUnavailable,
    Conflict,
    ImageRejected,
    ImageSearchError,
    InvalidRequest,
    MalformedRequest,
    ModelUnavailable,
    NoModel,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    Reason,
    Unauthorized,
    UnsupportedMediaType,
    VectorsUnavailable,
)
from core.gate import Gate
from core.hosts import KnownHosts

Client = TestClient[web.Request, web.Application]
ClientFactory = Callable[[web.Application], Awaitable[Client]]


GATE = Gate(KnownHosts(listens_on="127.0.0.1", allowed=["x"]))


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int


async def _client(aiohttp_client: ClientFactory, handler: ours.Handler, registry: CollectorRegistry | None = None) -> Client:
    app = ours.make_application("test", registry or CollectorRegistry(), gate=GATE, client_max_size=1000, routine=("/polled",))
    app.router.add_post("/things/{name}", handler)
    app.router.add_route("*", "/polled{name:.*}", handler)
    return await aiohttp_client(app)


def _raising(error: Exception) -> ours.Handler:
    async def handler(_: web.Request) -> web.Response:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (MalformedRequest("m"), 400, "bad_request"),
        (Unauthorized("m"), 401, "unauthorized"),
        (NotFound("m"), 404, "not_found"),
        (Conflict("m"), 409, "conflict"),
        (PayloadTooLarge("m"), 413, None),
        (UnsupportedMediaType("m"), 415, "unsupported_media_type"),
        (InvalidRequest("m", field="f"), 422, None),
        (ImageRejected(Reason.TOO_MANY_BYTES, "m"), 413, "too_many_bytes"),
        (ImageRejected(Reason.NOT_AN_IMAGE, "m"), 415, "not_an_image"),
        (ImageRejected(Reason.TRUNCATED, "m"), 422, "truncated"),
        (ImageRejected(Reason.TOO_MANY_PIXELS, "m"), 422, "too_many_pixels"),
        (Overloaded("m", retry_after_s=2.2), 503, "overloaded"),
        (NoModel("m"), 503, "no_model"),
        (ModelUnavailable("m"), 503, "service_unavailable"),
        (VectorsUnavailable("m"), 503, "service_unavailable"),
        (CatalogUnavailable("m"), 503, "service_unavailable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_each_error_becomes_its_status_in_the_one_shape(
    aiohttp_client: ClientFactory, error: ImageSearchError, status: int, code: str | None
) -> None:
    client = await _client(aiohttp_client, _raising(error))
    answer = await client.post("/things/x")
    document = await answer.json(content_type="application/problem+json")
    assert answer.status == status == document["status"]
    assert document["detail"] == "m"
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert {"type", "title", "status", "detail", "code", "request_id"} <= document.keys()
    if code is not None:
        assert document["code"] == code
    if status == 503:
        assert int(answer.headers["Retry-After"]) >= 1
    if isinstance(error, InvalidRequest):
        assert document["errors"] == [{"field": "f", "message": "m"}]


async def test_retry_after_is_rounded_up_to_whole_seconds(aiohttp_client: ClientFactory) -> None:
    client = await _client(aiohttp_client, _raising(Overloaded("full", retry_after_s=2.2)))
    assert (await client.post("/things/x")).headers["Retry-After"] == "3"


async def test_an_unexpected_error_reveals_neither_its_text_nor_a_trace(aiohttp_client: ClientFactory) -> None:
    client = await _client(aiohttp_client, _raising(KeyError("/secret/place")))
    answer = await client.post("/things/x")
    text = await answer.text()
    assert answer.status == 500
    assert "secret" not in text
    assert "Traceback" not in text
    assert json.loads(text)["request_id"]


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/nowhere", 404), ("GET", "/things/x", 405)])
async def test_unknown_addresses_and_methods_are_problems_too(
    aiohttp_client: ClientFactory, method: str, path: str, status: int
) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("m")))
    answer = await client.request(method, path)
    assert answer.status == status
    assert answer.content_type == "application/problem+json"
    assert status != 405 or "POST" in answer.headers["Allow"]


@pytest.mark.parametrize(("offered", "kept"), [("abc-1.2_3", True), ("with spaces", False), ("x" * 65, False), ("", False)])
async def test_a_usable_request_id_is_kept_and_any_other_replaced(
    aiohttp_client: ClientFactory, offered: str, kept: bool
) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("m")))
    answer = await client.post("/things/x", headers={"X-Request-ID": offered})
    assert (answer.headers["X-Request-ID"] == offered) is kept
    assert answer.headers["X-Request-ID"]


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_a_trace_is_continued_and_told_to_whoever_called(aiohttp_client: ClientFactory) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("m")))
    answer = await client.post("/things/x", headers={"traceparent": TRACEPARENT, "X-Request-ID": "mine"})
    version, trace_id, span_id, flags = answer.headers["traceresponse"].split("-")
    assert (version, trace_id, flags) == ("00", TRACEPARENT.split("-")[1], "01")
    assert span_id != TRACEPARENT.split("-")[2]
    assert answer.headers["X-Request-ID"] == "mine"


@pytest.mark.parametrize("header", [None, "nonsense", TRACEPARENT.upper()])
async def test_without_a_name_of_its_own_a_request_is_called_as_its_trace(
    aiohttp_client: ClientFactory, header: str | None
) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("m")))
    answer = await client.post("/things/x", headers={"traceparent": header} if header else {})
    assert answer.headers["traceresponse"].split("-")[1] == answer.headers["X-Request-ID"]
    assert answer.headers["X-Request-ID"] != TRACEPARENT.split("-")[1]


async def test_a_streamed_answer_tells_its_ids_too_and_is_timed_to_its_beginning(aiohttp_client: ClientFactory) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(0.3)
        await response.write_eof()
        return response

    registry = CollectorRegistry()
    client = await _client(aiohttp_client, handler, registry)
    answer = await client.post("/things/x")
    await answer.read()
    assert answer.headers["X-Request-ID"] == answer.headers["traceresponse"].split("-")[1]
    labels = {"service": "test", "method": "POST", "route": "/things/{name}", "status": "200", "le": "0.25"}
    assert registry.get_sample_value("http_request_duration_seconds_bucket", labels) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "level"),
    [
        ("GET", "/polled", 200, "debug"),
        ("HEAD", "/polled", 200, "debug"),
        ("POST", "/polled", 200, "info"),
        ("GET", "/polled/gone", 404, "info"),
        ("POST", "/things/x", 200, "info"),
    ],
)
async def test_one_line_a_request_and_none_for_what_is_polled_unless_it_fails(
    aiohttp_client: ClientFactory, method: str, path: str, status: int, level: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        if request.path.endswith("gone"):
            raise NotFound("m")
        return web.Response()

    client = await _client(aiohttp_client, handler)
    with capture_logs() as logs:
        await client.request(method, path)
    assert [(line["event"], line["status"], line["log_level"]) for line in logs] == [("request_answered", status, level)]


async def test_a_request_that_its_caller_tells_of_is_told_only_if_this_service_fails(aiohttp_client: ClientFactory) -> None:
    async def handler(request: web.Request) -> web.Response:
        ours.note_told_elsewhere(request)
        return web.Response(status=int(request.match_info["name"]))

    client = await _client(aiohttp_client, handler)
    with capture_logs() as logs:
        for status in (200, 422, 503):
            await client.post(f"/things/{status}")
    assert [(line["status"], line["log_level"]) for line in logs] == [(200, "debug"), (422, "debug"), (503, "info")]


async def test_where_nothing_stands_the_line_says_what_was_asked_for(aiohttp_client: ClientFactory) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("m")))
    with capture_logs() as logs:
        await client.post("/things/x")
        await client.get("/no/" + "w" * 500)
    assert [line.get("path") for line in logs] == [None, "/no/" + "w" * 196]


@pytest.mark.parametrize(("begins", "status"), [(True, 200), (False, 499)])
async def test_one_who_leaves_a_stream_has_got_an_answer_and_one_who_leaves_before_has_not(
    aiohttp_client: ClientFactory, begins: bool, status: int
) -> None:
    ended = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if begins:
            await response.prepare(request)
            await response.write(b"first")
        try:
            await asyncio.sleep(10)
        finally:
            ended.set()
        return response

    app = ours.make_application("test", CollectorRegistry(), gate=GATE, client_max_size=1000)
    app.router.add_get("/stream", handler)
    server = TestServer(app)
    await server.start_server()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    with capture_logs() as logs:
        writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        await (reader.read(10) if begins else asyncio.sleep(0.05))
        writer.close()
        await asyncio.wait_for(ended.wait(), 5)
        await asyncio.sleep(0.01)
    await server.close()
    assert [line["status"] for line in logs] == [status]


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), CatalogUnavailable("gone")])
async def test_an_answer_that_fails_in_the_middle_is_broken_off_and_nothing_else_sent_in_its_place(
    aiohttp_client: ClientFactory, error: Exception
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"a" * 100)
        raise error

    client = await _client(aiohttp_client, handler)
    received = bytearray()

    async def receive() -> None:
        async with asyncio.timeout(5), client.post("/things/1") as answer:
            async for chunk in answer.content.iter_any():
                received.extend(chunk)

    with pytest.raises(ClientPayloadError):
        await receive()
    assert set(received) <= set(b"a")


async def test_methods_that_nobody_knows_are_counted_as_one(aiohttp_client: ClientFactory) -> None:
    registry = CollectorRegistry()
    client = await _client(aiohttp_client, _raising(NotFound("m")), registry)
    for method in ("MKCOL", "PROPFIND"):
        await client.request(method, "/things/x")
    assert 'method="other",route="unmatched",service="test",status="405"} 2.0' in generate_latest(registry).decode()


async def test_requests_in_flight_are_counted_while_they_last(aiohttp_client: ClientFactory) -> None:
    seen: list[float | None] = []

    async def handler(_: web.Request) -> web.Response:
        seen.append(registry.get_sample_value("http_requests_in_flight", {"service": "test"}))
        raise NotFound("m")

    registry = CollectorRegistry()
    client = await _client(aiohttp_client, handler, registry)
    await client.post("/things/x")
    assert [*seen, registry.get_sample_value("http_requests_in_flight", {"service": "test"})] == [1, 0]


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"number": 1}', "application/json", 200),
        (b'{"number": 1', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 900, "application/json", 400),
        (b"", "application/json", 400),
        (b'{"number": 1}', "application/json; charset=nonsense", 400),
        (b'{"number": 1}', "text/plain", 415),
        (b'{"number": "1"}', "application/json", 422),
        (b'{"number": true}', "application/json", 422),
        (b'{"number": 1, "more": 2}', "application/json", 422),
        (b"{}", "application/json", 422),
        (b"[]", "application/json", 422),
        (b"1" * 2000, "application/json", 413),
    ],
)
async def test_a_json_body_is_read_or_refused_by_rule(
    aiohttp_client: ClientFactory, content: bytes, content_type: str, status: int
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return ours.json_answer(await ours.read_json(request, Body))

    client = await _client(aiohttp_client, handler)
    answer = await client.post("/things/x", data=content, headers={"Content-Type": content_type})
    assert answer.status == status, await answer.text()


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"[]", "Input should be an object"), (b"null", "Input should be an object"), (b'{"number": "1"}', "number: ")],
)
async def test_what_is_wrong_with_a_body_is_said_in_words_of_json(
    aiohttp_client: ClientFactory, content: bytes, told: str
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return ours.json_answer(await ours.read_json(request, Body))

    client = await _client(aiohttp_client, handler)
    answer = await client.post("/things/x", data=content, headers={"Content-Type": "application/json"})
    assert (await answer.json(content_type="application/problem+json"))["detail"].startswith(told)


async def test_a_body_that_is_not_packed_as_its_headers_say_is_the_callers_fault(aiohttp_client: ClientFactory) -> None:
    begun = asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        begun.set()
        return ours.json_answer(await ours.read_json(request, Body))

    client = await _client(aiohttp_client, handler)
    reader, writer = await asyncio.open_connection(client.host, client.port)
    with capture_logs() as logs:
        head = b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: 13"
        writer.write(b"POST /things/x HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")
        await asyncio.wait_for(begun.wait(), 10)  # before that it would be no request yet
        writer.write(b'{"number": 1}')
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer
    assert b"\r\nConnection: close\r\n" in answer
    assert not [line for line in logs if line["log_level"] in {"warning", "error"}]


async def test_a_problem_is_of_the_registered_type_which_has_no_parameters(aiohttp_client: ClientFactory) -> None:
    client = await _client(aiohttp_client, _raising(NotFound("not \u00e9t\u00e9")))
    answer = await client.post("/things/x")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert json.loads(await answer.read())["detail"] == "not \u00e9t\u00e9"


async def test_requests_are_counted_by_route_not_by_address(aiohttp_client: ClientFactory) -> None:
    registry = CollectorRegistry()
    client = await _client(aiohttp_client, _raising(NotFound("m")), registry)
    for name in ("a", "b"):
        await client.post(f"/things/{name}")
    await client.post("/nowhere")
    metrics = generate_latest(registry).decode()
    assert 'http_requests_total{method="POST",route="/things/{name}",service="test",status="404"} 2.0' in metrics
    assert 'route="unmatched"' in metrics
