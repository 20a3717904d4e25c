"""A TCP proxy that lets through, or does to its callers what a sick service, or the network before it, does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from enum import StrEnum
from urllib.parse import urlsplit


class Sickness(StrEnum):
    """What callers meet."""

    NONE = "none"
    SLOW = "slow"
    HANGS = "hangs"
    REFUSES = "refuses"
    BREAKS_OFF = "breaks off"
    GARBAGE = "answers garbage"
    HALF = "answers half a body"
    FAILS = "answers 500"
    WRONG = "answers something else in JSON"


_GARBAGE = b"\x00\x16\x03\x01 this is no HTTP \xff\xfe\r\n\r\n"
_FAILURE = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops"
_OTHER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\nConnection: close\r\n\r\n{"a": [1, 2.5]}'
_SLOW_S = 0.2


class Proxy:
    """`sickness` may be set at any time; connections that are open then are cut."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "127.0.0.1", parts.port or 80
        self._connections: set[asyncio.Task[None]] = set()
        self._sickness = Sickness.NONE
        self.met = 0

    @property
    def sickness(self) -> Sickness:
        return self._sickness

    async def fall(self, sickness: Sickness) -> None:
        self._sickness = sickness
        self.met = 0
        await self.cut()

    async def cut(self) -> None:
        for connection in list(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(ConnectionError, asyncio.CancelledError):
                await self._treat(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _treat(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.met += 1
        match self._sickness:
            case Sickness.REFUSES:
                writer.transport.abort()
            case Sickness.BREAKS_OFF:
                await reader.read(100)
                writer.transport.abort()
            case Sickness.HANGS:
                await reader.read(2**20)
                await asyncio.sleep(3600)
            case Sickness.GARBAGE | Sickness.FAILS | Sickness.WRONG:
                await reader.read(2**20)
                writer.write({Sickness.GARBAGE: _GARBAGE, Sickness.FAILS: _FAILURE, Sickness.WRONG: _OTHER}[self._sickness])
                await writer.drain()
            case _:
                await self._pass_on(reader, writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(*self._upstream)
        forth = asyncio.create_task(_pump(reader, up_writer))
        try:
            await self._back(up_reader, writer)
        finally:
            forth.cancel()
            await asyncio.gather(forth, return_exceptions=True)
            up_writer.close()

    async def _back(self, up_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await up_reader.read(2**16):
            if self._sickness is Sickness.SLOW:
                await asyncio.sleep(_SLOW_S)
            if self._sickness is Sickness.HALF:
                writer.write(chunk[: len(chunk) * 2 // 3])
                await writer.drain()
                return
            writer.write(chunk)
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(2**16):
        writer.write(chunk)
        await writer.drain()
    writer.write_eof()


@asynccontextmanager
async def proxy(upstream: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Yields it and its URL, on loopback."""
    between = Proxy(upstream)
    server = await asyncio.start_server(between.meet, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()[:2]
        yield between, f"http://{host}:{port}"
    finally:
        server.close()
        await between.cut()
