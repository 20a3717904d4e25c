"""Connections of a service: bounded in number, and each one given up that does not get on. aiohttp itself waits for ever."""

from __future__ import annotations

import asyncio
import select
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import structlog
from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, LineTooLong
from aiohttp.web_request import BaseRequest

from core.errors import StalledRequest
from core.headers import add_security_headers
from core.pace import Pace, PaceLimits, Stall
from core.problems import problem

log = structlog.get_logger()

_KEEPALIVE_S = 75.0
"""Longer than proxies keep a connection, so that they close it and never send into one that is just being closed."""
_RESTED_S = 1.0
_SILENT_S = 0.25
"""So long after it was heard of, or after it came without a word, a connection may go for another: what it sends has been read by then."""

_LINGER_S = 2.0
_MOST_LINGERING = 128
"""Connections that were refused, and whose callers still send what nobody reads: closed under their hands, they might not read why."""

_UNWIND_S = 1.0
"""What a request that was cut short at the end may take to notice."""

_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 5\r\nConnection: close\r\n"
    b'\r\n{"type":"about:blank","title":"Service Unavailable","status":503,"detail":"too many connections","code":"overloaded",'
    b'"request_id":""}'
)


class Connections:
    """All of one listener's. A new one beyond `most` takes the place of that which has asked nothing for longest, or is refused."""

    def __init__(self, server: web.Server, *, most: int, limits: PaceLimits) -> None:
        self._server = server
        self._most = most
        self._limits = limits
        self._open: set[Connection] = set()
        self._lingering: set[Connection] = set()

    @property
    def full(self) -> bool:
        return len(self._open) >= self._most

    def __call__(self) -> Connection:
        """For `loop.create_server`."""
        return Connection(self._server, self, self._limits)

    def admit(self, connection: Connection) -> bool:
        if self.full:
            now = asyncio.get_running_loop().time()
            spare = sorted((other for other in self._open if other.may_go(now)), key=lambda other: other.idle_since)
            going = next((other for other in spare if not other.has_unread), None)
            if going is None:
                return False
            going.drop()
        self._open.add(connection)
        return True

    def refuse(self, connection: Connection, wire: asyncio.Transport) -> None:
        """Say why, and let the caller end it."""
        wire.write(_BUSY)
        if len(self._lingering) >= _MOST_LINGERING:
            wire.close()
            return
        wire.write_eof()
        self._lingering.add(connection)
        asyncio.get_running_loop().call_later(_LINGER_S, connection.drop)

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._lingering.discard(connection)

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Give up what stalls, for as long as the context lasts."""
        sweeping = asyncio.create_task(self._sweep(), name="connections")
        try:
            yield
        finally:
            sweeping.cancel()
            await asyncio.wait([sweeping])
            for connection in tuple(self._lingering):
                connection.drop()

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(self._limits.look_every_s)
            now = loop.time()
            stalls = Counter(stall for connection in tuple(self._open) if (stall := connection.checked(now, now - before)))
            before = now
            if stalls:
                log.info("connections_dropped", **{stall.value: count for stall, count in stalls.items()})


class Connection(web.RequestHandler):
    """aiohttp's, with a pace."""

    __slots__ = ("_accepted", "_begun", "_body", "_connections", "_heard", "_unsent", "_wire", "idle_since", "pace")

    def __init__(self, server: web.Server, connections: Connections, limits: PaceLimits) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, access_log=None, keepalive_timeout=_KEEPALIVE_S)  # type: ignore[arg-type]
        self._connections = connections
        self._accepted = self._heard = False
        self._wire: asyncio.Transport | None = None
        self._body: Any = None
        self._begun = self._unsent = 0
        self.pace = Pace(limits, loop.time())
        self.idle_since = loop.time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a TCP server
        self._wire = transport
        self._accepted = self._connections.admit(self)
        if self._accepted:
            super().connection_made(transport)
        else:
            self._connections.refuse(self, transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.forget(self)
        if self._accepted:
            super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._accepted:
            now = self._loop.time()
            if not (self._heard and self.pace.head_is_due):
                self._heard, self.idle_since = True, now
            if data and not self._is_read_away:  # aiohttp calls it without any, to read on
                self.pace.took(len(data), now)
            super().data_received(data)

    @property
    def _is_read_away(self) -> bool:
        """Whether what comes is still the content of a request that was answered before its end."""
        return not self.pace.answering and self._body is not None and not self._body.is_eof()

    @property
    def is_to_close(self) -> bool:
        """Whether what it is answered now is the last on this connection: its place is wanted by others, or of its content
        came what cannot be read, behind which nothing is heard."""
        return self._connections.full or (self._body is not None and self._body.exception() is not None)

    def may_go(self, now: float) -> bool:
        """Whether it may be given up for another. Nothing that was asked of it, or is just being sent, is lost by that."""
        rested = now - self.idle_since > (_RESTED_S if self._heard else _SILENT_S)
        waits = self.pace.answering or self._request_count > self._begun  # what was read may be long in coming to be answered
        return rested and not waits and self._wire is not None and not self._wire.get_write_buffer_size()

    @property
    def has_unread(self) -> bool:
        """Whether something was sent that has not been read yet, as by one who asks again this very moment."""
        assert self._wire is not None  # noqa: S101 - it is open
        unread = select.poll()
        unread.register(self._wire.get_extra_info("socket"), select.POLLIN)
        return bool(unread.poll(0))

    def pause_writing(self) -> None:
        super().pause_writing()
        self.pace.answer_waits(self._loop.time())

    def resume_writing(self) -> None:
        super().resume_writing()
        self.pace.answer_waits(None)

    def request_began(self, request: web.Request) -> None:
        self._begun += 1
        self._body = request.content
        self.pace.request_began(self._loop.time())

    def request_ended(self) -> None:
        self.pace.request_ended()
        if self._body is not None and self._body.exception() is not None:
            self._body.feed_eof()  # or aiohttp reads on, for what may still come
        self.idle_since = self._loop.time()

    async def shutdown(self, timeout: float | None = 0.0) -> None:
        """aiohttp would wait twice as long, and without any time for ever."""
        ending = self._loop.call_later(timeout or 0.0, self._end)
        try:
            await super().shutdown((timeout or 0.0) + _UNWIND_S)
        finally:
            ending.cancel()

    def _end(self) -> None:
        if self._task_handler is not None:
            self._task_handler.cancel()

    def drop(self) -> None:
        if self._wire is not None:
            self._wire.abort()
        self._connections.forget(self)

    def checked(self, now: float, elapsed_s: float) -> Stall | None:
        """What the connection was given up for just now, if it was."""
        wire = self._wire
        if wire is None:
            return None
        if wire.is_closing():
            self.pace.ending(now)
        unsent_before, self._unsent = self._unsent, wire.get_write_buffer_size()
        self.pace.answer_taken(max(0, unsent_before - self._unsent), now)
        if self._body is not None and self._body.is_eof():
            self.pace.body_complete()
        elif not wire.is_closing() and not wire.is_reading():
            self.pace.body_unread_for(elapsed_s)
        stall = self.pace.stall(now)
        if stall is Stall.BODY and self._body is not None and self._body.exception() is None:
            self._tell_reader()
        elif stall is not None:
            self.drop()
        return stall

    def _tell_reader(self) -> None:
        """Whoever reads the body hears of it and can still answer; nothing more is taken. Who does not, is dropped by the next look."""
        self.close()
        self._body.set_exception(StalledRequest("the request came too slowly to wait for"))

    def handle_error(
        self, request: BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is no HTTP, or too long. aiohttp's own would repeat what was sent, keys included, in the answer and in the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if status >= 500:
            request_id = uuid4().hex
            log.error("request_failed", request_id=request_id, exc_info=exc)
            return _closing(500, "something went wrong on our side; the request id finds it in the log", request_id)
        match exc:
            case LineTooLong():
                return _unreadable(431, "the address or a header is longer than allowed", exc)
            case ContentEncodingError():
                return _unreadable(415, "bodies may be encoded as gzip or deflate, or not at all", exc)
            case _:
                return _unreadable(status, "this is not valid HTTP", exc)

    async def finish_response(
        self, request: BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """An `Expect` that it does not know is refused by aiohttp before anything of ours is asked."""
        if isinstance(resp, web.HTTPExpectationFailed):
            resp = _unreadable(417, "nothing but 100-continue can be expected here", resp)
        return await super().finish_response(request, resp, start_time)


def _unreadable(status: int, told: str, error: BaseException | None) -> web.Response:
    request_id = uuid4().hex
    log.info("request_unreadable", request_id=request_id, status=status, error=type(error).__name__)
    return _closing(status, told, request_id)


def _closing(status: int, told: str, request_id: str) -> web.Response:
    """A problem that is the last on its connection."""
    answer = problem(status, told, request_id=request_id, headers={"X-Request-ID": request_id})
    add_security_headers(answer)
    answer.force_close()
    return answer
