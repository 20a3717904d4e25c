"""What a connection keeps while it is answered, after an answer, where places are wanted by others, and at the end of the service."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from core import connections
from core.connections import Connection, Connections
from core.gate import Gate
from core.hosts import KnownHosts
from core.pace import PaceLimits
from core.serving import MOST_CONNECTIONS, serving
from core.web import Handler, make_application

ASKED = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n"

Address = tuple[str, int]


@asynccontextmanager
async def _served(
    handler: Handler, *, most: int = MOST_CONNECTIONS, pace: PaceLimits | None = None, grace_s: float = 1.0
) -> AsyncIterator[Address]:
    gate = Gate(KnownHosts(listens_on="127.0.0.1", allowed=[]))
    app = make_application("test", CollectorRegistry(), gate=gate, client_max_size=1000)
    app.router.add_post("/", handler)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(app, listener, shutdown_grace_s=grace_s, most_connections=most, pace=pace):
            yield listener.getsockname()


async def _short(_: web.Request) -> web.Response:
    return web.Response(text="answered")


async def _answered(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(5):
        await reader.readuntil(b"answered")


async def test_an_answer_that_is_still_being_taken_is_not_cut_off_for_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_RESTED_S", 0.0)
    size = 16 * 2**20

    async def long(_: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    async with _served(long, most=1) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASKED)
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head
        other, others = await asyncio.open_connection(*address)
        async with asyncio.timeout(5):
            assert (await other.readline()).startswith(b"HTTP/1.1 503 ")
        others.close()
        async with asyncio.timeout(10):
            assert len(await reader.readexactly(size)) == size
        writer.close()


async def test_a_request_that_has_come_but_was_not_read_yet_keeps_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_RESTED_S", 0.0)
    admit = Connections.admit
    async with _served(_short, most=2) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASKED)
        await _answered(reader)
        _, silent = await asyncio.open_connection(*address)

        def admit_just_when_it_asks_again(this: Connections, connection: Connection) -> bool:
            writer.write(ASKED)
            return admit(this, connection)

        monkeypatch.setattr(Connections, "admit", admit_just_when_it_asks_again)
        other, others = await asyncio.open_connection(*address)
        async with asyncio.timeout(5):
            assert (await other.readline()).startswith(b"HTTP/1.1 503 ")
        await _answered(reader)
        for each in (writer, silent, others):
            each.close()


@pytest.mark.parametrize("turns", range(2))
async def test_a_request_that_was_read_but_has_not_begun_keeps_its_connection(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """However long it takes until it does: here, the loop comes to a new connection first."""
    monkeypatch.setattr(connections, "_RESTED_S", 0.0)
    async with _served(_short, most=2) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASKED)
        await _answered(reader)
        _, silent = await asyncio.open_connection(*address)
        await asyncio.sleep(0.05)
        with socket.socket() as other:
            other.setblocking(False)
            other.connect_ex(address)
            for _ in range(turns):
                await asyncio.sleep(0)
            writer.write(ASKED)
            await _answered(reader)
        for each in (writer, silent):
            each.close()


async def test_content_that_comes_after_its_answer_is_not_taken_for_a_request_that_does_not_get_on() -> None:
    pace = PaceLimits(head_s=0.1, look_every_s=0.02)
    async with _served(_short, pace=pace) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASKED.replace(b"Length: 0", b"Length: 8") + b"only")
        await _answered(reader)
        writer.write(b"half")
        await asyncio.sleep(0.4)
        writer.write(ASKED)
        await _answered(reader)
        writer.close()


async def test_an_answer_to_content_that_cannot_be_read_is_the_last_and_says_so() -> None:
    """Also where nobody wanted to read it."""
    async with _served(_short) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(ASKED.replace(b"Length: 0\r\n", b"Length: 5\r\nContent-Encoding: deflate\r\n") + b"abcde")
        async with asyncio.timeout(5):
            answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close\r\n" in answer
        assert answer.endswith(b"answered")
        writer.close()


async def test_a_long_answer_that_is_taken_slowly_but_steadily_is_sent_to_its_end() -> None:
    size, loop = 12 * 2**20, asyncio.get_running_loop()

    async def long(_: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    async with _served(long, pace=PaceLimits(answer_s=0.3, look_every_s=0.02)) as address:
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            slow.setblocking(False)
            await loop.sock_connect(slow, address)
            await loop.sock_sendall(slow, ASKED)
            taken, begun_at = 0, loop.time()
            while taken < size and (piece := await loop.sock_recv(slow, 2**18)):
                taken += len(piece)
                await asyncio.sleep(max(0.0, begun_at + taken / size - loop.time()))
    assert taken > size


@pytest.mark.parametrize("grace_s", [0.0, 0.5])
async def test_what_does_not_end_is_given_the_grace_and_no_more(grace_s: float) -> None:
    begun, loop = asyncio.Event(), asyncio.get_running_loop()
    ended_at = None

    async def endless(_: web.Request) -> web.Response:
        nonlocal ended_at
        begun.set()
        try:
            await asyncio.sleep(8)
        finally:
            ended_at = loop.time()
        return web.Response()

    async with _served(endless, grace_s=grace_s) as address:
        _, writer = await asyncio.open_connection(*address)
        writer.write(ASKED)
        await begun.wait()
        told_at = loop.time()
    assert ended_at is not None
    assert grace_s - 0.05 <= ended_at - told_at < grace_s + 0.4
    writer.close()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Expect: a miracle", 417),
        ("Content-Encoding: br", 415),
        ("Content-Encoding: zstd", 415),
        (f"X: {'x' * 20_000}", 431),
        ("no header", 400),
        ("Transfer-Encoding: banana", 400),
    ],
)
async def test_what_is_refused_before_it_reaches_any_route_is_a_problem_like_all_others(header: str, status: int) -> None:
    async with _served(_short) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n%s\r\nContent-Length: 2\r\n\r\n{}" % header.encode())
        async with asyncio.timeout(5):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    document = json.loads(body)
    assert f" {status} ".encode() in head.splitlines()[0]
    assert b"Content-Type: application/problem+json" in head
    assert f"X-Request-ID: {document['request_id']}".encode() in head
    assert b"X-Content-Type-Options: nosniff" in head
    assert document["status"] == status
    assert header not in body.decode()
