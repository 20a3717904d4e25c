"""Callers that begin and do not go on, send for ever, never read, or are too many. Times are a twentieth of the real ones."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from core import connections
from core.pace import Pace, PaceLimits, Stall
from tests.attacks.services import SERVICES, Attacked, attacked

QUICK = PaceLimits(head_s=1.0, body_grace_s=1.0, least_bytes_per_s=2000.0, answer_s=1.0, end_s=1.0, look_every_s=0.1)
SEARCH = b"POST /api/v1/search-image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
POSTS = {"searchsvc": "/api/v1/search-image", "watcher": "/v1/notice", "model_service": "/v1/embed-texts"}


# --- the rules, without a clock ---------------------------------------------------------------------------------------


def test_a_head_has_its_time_from_the_first_byte_and_a_silent_caller_from_the_beginning() -> None:
    pace = Pace(PaceLimits(), 0.0)
    assert (pace.stall(20.0), pace.stall(20.1)) == (None, Stall.HEAD)
    pace.request_began(10.0)
    pace.body_complete()
    assert pace.stall(10_000.0) is None, "an answer may take as long as it takes"
    pace.request_ended()
    assert pace.stall(10_000.0) is None, "between two requests aiohttp's own time-out holds"
    pace.took(1, 100.0)
    pace.took(1, 119.0)
    assert (pace.stall(120.0), pace.stall(120.1)) == (None, Stall.HEAD)


def test_a_body_must_come_at_a_rate_after_its_grace_and_our_own_pauses_do_not_count() -> None:
    pace = Pace(PaceLimits(body_grace_s=20.0, least_bytes_per_s=1000.0), 0.0)
    pace.request_began(0.0)
    assert (pace.stall(20.0), pace.stall(20.1)) == (None, Stall.BODY)
    pace.took(10_000, 15.0)
    assert (pace.stall(30.0), pace.stall(30.1)) == (None, Stall.BODY)
    pace.body_unread_for(60.0)
    assert (pace.stall(90.0), pace.stall(90.1)) == (None, Stall.BODY)
    pace.body_complete()
    assert pace.stall(10_000.0) is None


def test_what_of_a_body_came_quickly_buys_no_long_silence() -> None:
    pace = Pace(PaceLimits(body_grace_s=20.0, body_credit_s=40.0, least_bytes_per_s=1000.0), 0.0)
    pace.request_began(0.0)
    pace.took(100_000_000, 5.0)
    assert (pace.stall(65.0), pace.stall(65.1)) == (None, Stall.BODY)
    pace.took(1000, 60.0)
    assert (pace.stall(66.0), pace.stall(66.1)) == (None, Stall.BODY)


def test_an_answer_and_an_end_have_their_time_too() -> None:
    pace = Pace(PaceLimits(answer_s=60.0, end_s=10.0), 0.0)
    pace.request_began(0.0)
    pace.body_complete()
    pace.answer_waits(5.0)
    assert (pace.stall(65.0), pace.stall(65.1)) == (None, Stall.ANSWER)
    pace.answer_taken(20 * 2048, 65.0)
    assert (pace.stall(85.0), pace.stall(85.1)) == (None, Stall.ANSWER)
    pace.answer_taken(10**9, 86.0)
    assert (pace.stall(146.0), pace.stall(146.1)) == (None, Stall.ANSWER), "what was taken quickly is no credit"
    pace.answer_waits(None)
    assert pace.stall(147.0) is None
    pace.ending(150.0)
    pace.ending(155.0)
    assert (pace.stall(160.0), pace.stall(160.1)) == (None, Stall.END)


# --- with sockets -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=SERVICES)
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Attacked]:
    async with attacked(request.param, tmp_path, pace=QUICK) as served:
        yield served


def _post(service: Attacked, more: str) -> bytes:
    path = next(path for path in POSTS.values() if any(route == ("POST", path) for route in service.routes()))
    return f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n{more}\r\n".encode()


async def _dribbled(service: Attacked, begun: bytes, drop: bytes, *, within_s: float) -> bytes:
    """Send a beginning, then a drop every 50 ms, until the service has had enough. What it answered: of what came before a reset,
    sockets give all, and streams nothing where they write in that moment."""
    loop = asyncio.get_running_loop()

    async def dribble(caller: socket.socket) -> None:
        with suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.05)
                await loop.sock_sendall(caller, drop)

    answer = b""
    with socket.create_connection(("127.0.0.1", service.port)) as caller:
        caller.setblocking(False)
        await loop.sock_sendall(caller, begun)
        dribbling = asyncio.create_task(dribble(caller))
        try:
            async with asyncio.timeout(within_s):
                with suppress(ConnectionError):
                    while piece := await loop.sock_recv(caller, 2**16):
                        answer += piece
        finally:
            dribbling.cancel()
            await asyncio.wait([dribbling])
    return answer


async def _lives(service: Attacked) -> bool:
    return (await service.ask("GET", "/health/live"))[0] == 200


@pytest.mark.parametrize("begun", [b"", b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "])
async def test_a_head_that_never_ends_is_cut_off(service: Attacked, begun: bytes) -> None:
    assert await _dribbled(service, begun, b"a" if begun.endswith(b" ") else b"", within_s=6) == b""
    assert await _lives(service)


async def test_headers_that_are_dribbled_one_by_one_are_cut_off(service: Attacked) -> None:
    assert await _dribbled(service, b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n", b"X-a: b\r\n", within_s=6) == b""


@pytest.mark.parametrize("length", ["Content-Length: 60000\r\n", "Transfer-Encoding: chunked\r\n"])
async def test_a_body_that_is_dribbled_is_408_and_the_end(service: Attacked, length: str) -> None:
    drop = b" " if "Length" in length else b"1\r\n \r\n"
    answer = await _dribbled(service, _post(service, length), drop, within_s=8)
    assert b" 408 " in answer.partition(b"\r\n")[0]
    assert b'"request_timeout"' in answer
    assert b"connection: close" in answer.lower()
    assert await _lives(service)


async def test_a_form_that_is_dribbled_frees_its_place(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path, pace=QUICK, max_uploads=1) as service:
        head = b"POST /api/v1/search-image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 90000\r\n"
        head += b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
        begun = head + b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        assert b" 408 " in (await _dribbled(service, begun, b"a", within_s=8)).partition(b"\r\n")[0]
        again = await _dribbled(service, begun, b"a", within_s=8)
        assert b" 408 " in again.partition(b"\r\n")[0], "not 503: the place is free"


async def test_a_slow_but_steady_body_is_waited_for(service: Attacked) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    content = b'{"text": "red", "path": "red.png", "texts": ["red"]}'.ljust(12_000)
    writer.write(_post(service, f"Content-Length: {len(content)}\r\nConnection: close\r\n"))
    for start in range(0, len(content), 600):
        writer.write(content[start : start + 600])
        await asyncio.sleep(0.12)
    async with asyncio.timeout(10):
        status = (await reader.readline()).split()[1]
    writer.close()
    assert status in {b"200", b"202", b"422"}, "read to its end, and judged by what it says"


async def test_an_answer_that_nobody_takes_is_dropped(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path, pace=QUICK) as service:
        content = b"\x89PNG\r\n\x1a\n".ljust(30 * 2**20)
        (service.images / "red.png").write_bytes(content)
        record = service.catalog.records[service.image_id]
        service.catalog.records[service.image_id] = record.model_copy(update={"bytes": len(content)})
        asked = f"GET /api/v1/images/{service.image_id}/file HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        silent = socket.socket()
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        silent.setblocking(False)
        loop = asyncio.get_running_loop()
        with silent:
            await loop.sock_connect(silent, ("127.0.0.1", service.port))
            await loop.sock_sendall(silent, asked)
            async with asyncio.timeout(10):
                while await _in_flight(service) > 1:
                    await asyncio.sleep(0.1)
        assert await _lives(service)


async def _in_flight(service: Attacked) -> float:
    _, _, told = await service.ask("GET", "/metrics")
    async with service.session.get(service.address + "/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert told
    return float(next(line for line in lines if line.startswith("http_requests_in_flight")).split()[1])


async def test_beyond_the_most_connections_the_idle_make_room_and_the_busy_do_not(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path, pace=PaceLimits(), most_connections=8) as service:
        idle = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(8)]
        assert (await service.raw(b"")).startswith(b"HTTP/1.1 503 "), "who has just come may be about to ask"
        await asyncio.sleep(0.3)
        for _ in range(50):
            assert (await service.raw(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).endswith(
                b"}"
            )
        assert sum(reader.at_eof() or reader.exception() is not None for reader, _ in idle) >= 1
        for _, writer in idle:
            writer.close()

        await asyncio.sleep(1.1)
        listeners = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(8)]
        for reader, writer in listeners:
            writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 5)
        refused = await service.raw(b"")
        assert refused.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: 5\r\n" in refused
        assert b'"overloaded"' in refused
        for _, writer in listeners:
            writer.close()


async def test_nothing_that_was_asked_is_lost_where_connections_are_wanted_by_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more callers than places, all of whom keep their connections: each is answered, or refused and told why."""
    for rest in ("_RESTED_S", "_SILENT_S"):  # one loop serves and asks: on a busy machine it may itself rest for a second
        monkeypatch.setattr(connections, rest, 5.0)
    async with attacked("searchsvc", tmp_path, pace=PaceLimits(), most_connections=8, search_rate_per_minute=10**6) as service:
        statuses: Counter[int] = Counter()

        async def caller(session: aiohttp.ClientSession) -> None:
            for _ in range(30):
                async with session.post(service.address + POSTS["searchsvc"], json={"text": "red"}) as answer:
                    await answer.read()
                    statuses[answer.status] += 1

        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=0.1)  # what rests longer may go, and is not asked by then
        async with aiohttp.ClientSession(connector=kept) as session:
            await asyncio.gather(*(caller(session) for _ in range(40)))
    assert statuses.keys() == {200, 503}


@pytest.mark.parametrize("kind", ["silent", "half a head", "half a body"])
async def test_a_flood_of_connections_takes_bounded_memory_and_leaves_room(tmp_path: Path, kind: str) -> None:
    begun = {
        "silent": b"",
        "half a head": b"GET / HTTP/1.1\r\nX: " + b"x" * 4000,
        "half a body": SEARCH + b"Content-Length: 900000\r\n\r\n" + b"x" * 60_000,
    }[kind]
    async with attacked("searchsvc", tmp_path, pace=QUICK, most_connections=100) as service:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        flood = []
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", service.port)
            writer.write(begun)
            flood.append(writer)
        async with asyncio.timeout(15):
            while (await _status_or_none(service)) != 200:
                await asyncio.sleep(0.1)
        for writer in flood:
            writer.close()
        grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        assert grown_mb < 100, "300 callers of 60 kB, and their own side of it"


async def _status_or_none(service: Attacked) -> int | None:
    answer = await service.raw(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    return int(answer.split()[1]) if answer.startswith(b"HTTP/") else None


@pytest.mark.parametrize("path", ["/api/v1/search-image", "/api/v1/create-feedback"])
async def test_a_body_beyond_the_limit_is_413_however_it_is_announced(tmp_path: Path, path: str) -> None:
    async with attacked("searchsvc", tmp_path) as service:
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\n".encode()
        content = b'{"text": "' + b"x" * 2**20 + b'"}'
        for sent in (
            head + b"Content-Length: %d\r\n\r\n" % len(content) + content,
            head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n",
        ):
            assert b" 413 " in (await service.raw(sent)).partition(b"\r\n")[0]
        promised = head + b"Content-Length: 99999999999999\r\n\r\nx"
        assert b" 413 " in await service.raw(promised, first_line=True)
