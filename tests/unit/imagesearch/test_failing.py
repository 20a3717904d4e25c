"""What the clients do when the service is busy, away, slow, or no image search at all."""

from __future__ import annotations

import asyncio
import socket
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from imagesearch import AsyncClient, Client, NotFound, Refused, Retrying, Unavailable, Unintelligible, Unreachable
from tests.tls import self_signed
from tests.unit.imagesearch.conftest import MakeCaller, Stub, document, problem, text

STATUS: dict[str, Any] = {
    "images": {"pending": 0, "running": 0, "indexed": 1, "failed": 0},
    "segments": 0,
    "rate_per_s": 0.0,
    "watcher": {"state": "watching", "observer": "inotify"},
    "models": [],
    "spaces": [],
    "model_state": "ready",
    "writing_needs_key": False,
    "version": "0.1.0",
}
QUICK = Retrying(attempts=3, first_pause_s=0.01, longest_pause_s=1.5)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_busy_service_is_asked_again(make_caller: MakeCaller, stub: Stub, status: int) -> None:
    stub.answers = [problem(status), problem(status), document(STATUS)]
    assert (await make_caller(stub.url, retrying=QUICK)("status")).images.indexed == 1
    assert len(stub.asked) == 3


async def test_it_is_asked_no_more_than_so_often(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [problem(503, "overloaded", detail="the queue is full")]
    with pytest.raises(Unavailable, match="the queue is full") as away:
        await make_caller(stub.url, retrying=QUICK)("status")
    assert (len(stub.asked), away.value.code, away.value.request_id) == (3, "overloaded", "r-1")


async def test_retry_after_is_honoured_and_told(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [problem(503, retry_after="1"), document(STATUS)]
    pauses: list[float] = []
    policy = Retrying(first_pause_s=0.01, on_pause=lambda error, pause_s: pauses.append(pause_s))
    started = time.monotonic()
    await make_caller(stub.url, retrying=policy)("status")
    assert time.monotonic() - started >= 1.0
    assert pauses == [1.0]


async def test_retry_after_may_be_a_date(make_caller: MakeCaller, stub: Stub) -> None:
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    stub.answers = [problem(503, retry_after=in_a_minute)]
    with pytest.raises(Unavailable) as away:
        await make_caller(stub.url, retrying=QUICK)("status")
    assert 55 <= (away.value.retry_after_s or 0) <= 61
    assert len(stub.asked) == 1, "a pause beyond the longest is the caller's to decide on"


@pytest.mark.parametrize(
    "retry_after",
    ["soon", "-1", "1.5", "99999999999999999999 foo", "Sun, 22 Nov 99999999999 10:00:00 GMT", "1 Nov 2026 10:00:00 +99999999999"],
)
async def test_a_retry_after_that_means_nothing_is_passed_over(make_caller: MakeCaller, stub: Stub, retry_after: str) -> None:
    stub.answers = [problem(503, retry_after=retry_after), document(STATUS)]
    assert await make_caller(stub.url, retrying=QUICK)("status")


@pytest.mark.parametrize(("status", "code"), [(422, "x"), (404, "not_found"), (409, "conflict"), (500, "x"), (503, "no_model")])
async def test_what_waiting_cannot_help_is_asked_once(make_caller: MakeCaller, stub: Stub, status: int, code: str) -> None:
    stub.answers = [problem(status, code)]
    with pytest.raises((Refused, Unavailable)) as refused:
        await make_caller(stub.url, retrying=QUICK)("status")
    assert (len(stub.asked), refused.value.status) == (1, status)


async def test_an_uploaded_picture_is_sent_whole_again(make_caller: MakeCaller, stub: Stub) -> None:
    lengths: list[int] = []

    async def busy_once(request: web.Request) -> web.Response:
        lengths.append(len(await request.read()))
        if len(lengths) == 1:
            return await problem(503)(request)
        return web.json_response({"image_id": "0" * 64, "status_url": "/x"}, status=202)

    stub.answers = [busy_once]
    await make_caller(stub.url, retrying=QUICK)("upload", b"x" * 5000, name="x.png")
    assert len(lengths) == 2
    assert lengths[0] == lengths[1] > 5000


async def test_nobody_there_is_unreachable_and_says_where(make_caller: MakeCaller) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(Unreachable, match=f"127.0.0.1:{port}") as away:
        await make_caller(f"http://127.0.0.1:{port}", retrying=QUICK)("search", "red")
    assert away.value.status is None


async def test_an_answer_that_does_not_come_is_unreachable(make_caller: MakeCaller, stub: Stub) -> None:
    async def never(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        raise AssertionError("the client waits too long")

    stub.answers = [never]
    with pytest.raises(Unreachable, match="in time"):
        await make_caller(stub.url, timeout_s=0.2)("status")
    assert len(stub.asked) == 1


async def test_an_answer_that_breaks_off_is_unreachable(make_caller: MakeCaller, stub: Stub) -> None:
    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    stub.answers = [break_off]
    with pytest.raises(Unreachable, match="broke off"):
        await make_caller(stub.url)("status")


@pytest.mark.parametrize(
    "answer",
    [
        text("<html>welcome to nginx</html>"),
        text("gone", status=404),
        text("moved", status=302, headers={"Location": "http://elsewhere.example/"}),
        document({"images": 5}),
        document({}),
    ],
)
async def test_another_service_at_the_address_is_unintelligible(make_caller: MakeCaller, stub: Stub, answer: Any) -> None:
    stub.answers = [answer]
    with pytest.raises(Unintelligible):
        await make_caller(stub.url, api_key="secret")("status")
    assert len(stub.asked) == 1, "a redirect is not followed: the key would go with it"


async def test_a_proxys_own_word_for_away_is_unavailable(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [text("bad gateway", status=502)]
    with pytest.raises(Unavailable, match="502"):
        await make_caller(stub.url)("status")


async def test_a_newer_service_may_say_more_than_is_known(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [document({**STATUS, "weather": "fine", "images": {**STATUS["images"], "dreamt": 3}})]
    assert (await make_caller(stub.url)("status")).images.indexed == 1


async def test_the_key_goes_along_as_a_bearer_token(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [document(STATUS)]
    await make_caller(stub.url, api_key="the-key")("status")
    assert stub.asked[0][2]["Authorization"] == "Bearer the-key"


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_an_address_that_is_none_is_refused_at_once(kind: type[Client | AsyncClient]) -> None:
    for address in ("localhost:3000", "ftp://x", "http://", "3000"):
        with pytest.raises(ValueError, match="not the address"):
            kind(address)


def test_the_address_comes_from_the_argument_the_environment_or_is_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IMAGESEARCH_URL", raising=False)
    with Client() as client:
        assert client.url == "http://127.0.0.1:3000"
    monkeypatch.setenv("IMAGESEARCH_URL", "http://search.example:8080/")
    with Client() as client, Client("https://other.example") as other:
        assert (client.url, other.url) == ("http://search.example:8080", "https://other.example")


def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        with Client(f"http://127.0.0.1:{port}", timeout_s=1) as client, pytest.raises(Unreachable, match="nobody answers"):
            client.status()


async def test_over_tls_a_certificate_that_nobody_vouches_for_is_refused(make_caller: MakeCaller, tmp_path: Path) -> None:
    app = web.Application()
    app.router.add_get("/api/v1/status", document(STATUS))
    server = TestServer(app, scheme="https")
    await server.start_server(ssl=self_signed(tmp_path)[0])
    try:
        with pytest.raises(Unreachable) as refused:
            await make_caller(f"https://127.0.0.1:{server.port}", retrying=Retrying(attempts=1))("status")
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused.value.__cause__)
    finally:
        await server.close()


@pytest.mark.parametrize("asked", [{"text": "\udcff"}, {"text": "x", "min_score": float("nan")}, {"folder": "\udcff"}])
async def test_what_cannot_be_said_in_a_request_is_refused_here(
    make_caller: MakeCaller, stub: Stub, asked: dict[str, Any]
) -> None:
    stub.answers = [document({})]
    operation, given = ("upload", (b"x",)) if "folder" in asked else ("search", ())
    with pytest.raises(Refused, match="cannot be sent"):
        await make_caller(stub.url)(operation, *given, **asked)
    assert not stub.asked


async def test_a_file_whose_folder_cannot_be_said_fails_and_the_rest_goes_on(
    make_caller: MakeCaller, stub: Stub, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    [added] = await make_caller(stub.url)("add", tmp_path / "a.png", folder="\udcff")
    assert added.failed


async def test_an_image_is_asked_for_by_its_name_whatever_that_holds(make_caller: MakeCaller, stub: Stub) -> None:
    stub.answers = [problem(404, "not_found")]
    for name in ("a/b?c#d", "a\tb", "é"):
        with pytest.raises(NotFound):
            await make_caller(stub.url)("delete", name)
    assert [path for _, path, _ in stub.asked] == [f"/api/v1/images/{name}" for name in ("a%2Fb%3Fc%23d", "a%09b", "%C3%A9")]


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"url": "http://host:abc"}, "address"),
        ({"url": "http://\udcff"}, "address"),
        ({"url": "http://host", "api_key": "secret\n"}, "API key"),
        ({"url": "http://host", "api_key": "schl\u00fcssel"}, "API key"),
        ({"url": "http://host", "timeout_s": -1.0}, "timeout_s"),
        ({"url": "http://host", "timeout_s": float("nan")}, "timeout_s"),
        ({"url": "http://host", "timeout_s": 1e12}, "timeout_s"),
    ],
)
def test_what_no_client_can_be_made_of_is_told_at_once(kind: Any, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as told:
        kind(**given)
    assert not {"secret", "schl"} & set(str(told.value).split())


def test_pauses_stay_numbers_however_often_it_is_tried() -> None:
    pause_s = Retrying(attempts=10_000).pause_s(5000, Unavailable("busy", status=503))
    assert pause_s is not None
    assert pause_s <= 30


async def test_a_proxy_that_finds_a_picture_too_large_is_about_that_picture(
    make_caller: MakeCaller, stub: Stub, tmp_path: Path
) -> None:
    stub.answers = [text("<html>Request Entity Too Large", status=413), document({"image_id": "a" * 64, "status_url": "/"})]
    for name in ("large.png", "small.png"):
        (tmp_path / name).write_bytes(b"x")
    large, small = await make_caller(stub.url)("add", [tmp_path / "large.png", tmp_path / "small.png"])
    assert (large.failed, large.reason, small.failed) == (True, "too_many_bytes", False)
