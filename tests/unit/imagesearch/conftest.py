"""Both clients against the real search service over fakes, and against a stub that fails as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from imagesearch import AsyncClient, Client, Retrying
from tests.unit.searchsvc.conftest import World, make_world, world

__all__ = ["make_world", "world"]

Kind = Literal["blocking", "awaited"]


@dataclass
class Caller:
    """One client of either kind, called in one way; the blocking one in a thread, since the service shares the test's loop."""

    client: Client | AsyncClient

    async def __call__(self, operation: str, *args: Any, **options: Any) -> Any:
        if isinstance(self.client, Client):
            return await asyncio.to_thread(getattr(self.client, operation), *args, **options)
        return await getattr(self.client, operation)(*args, **options)

    async def pages(self, answer: Any) -> list[Any]:
        if isinstance(self.client, Client):
            return await asyncio.to_thread(lambda: list(self.client.pages(answer)))
        return [page async for page in self.client.pages(answer)]


MakeCaller = Callable[..., Caller]


@pytest.fixture(params=["blocking", "awaited"])
async def make_caller(request: pytest.FixtureRequest) -> AsyncIterator[MakeCaller]:
    """A client of an address; every test that asks for it runs once with each kind."""
    made: list[Client | AsyncClient] = []

    def make(url: str, **options: Any) -> Caller:
        made.append((Client if request.param == "blocking" else AsyncClient)(url, **options))
        return Caller(made[-1])

    yield make
    for client in made:
        if isinstance(client, Client):
            client.close()
        else:
            await client.aclose()


@pytest.fixture
def address(world: World) -> str:
    return str(world.client.make_url("/")).rstrip("/")


@pytest.fixture
def call(make_caller: MakeCaller, address: str) -> Caller:
    """A client of the real service."""
    return make_caller(address, retrying=Retrying(attempts=1))


Answer = Callable[[web.Request], Awaitable[web.Response]]


@dataclass
class Stub:
    """Answers with what was laid ready, in order, the last for ever; remembers what it was asked."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        self.bodies.append((await request.read()).decode(errors="replace"))
        self.asked.append((request.method, request.path_qs, dict(request.headers)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)


@pytest.fixture
async def stub() -> AsyncIterator[Stub]:
    stub = Stub()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", stub.answer)
    async with TestServer(app) as server:
        stub.url = str(server.make_url("/")).rstrip("/")
        yield stub


def problem(status: int, code: str = "service_unavailable", *, detail: str = "away", retry_after: str | None = None) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        document = {"type": "about:blank", "title": "x", "status": status, "detail": detail, "code": code, "request_id": "r-1"}
        headers = {"Retry-After": retry_after} if retry_after else None
        return web.json_response(document, status=status, content_type="application/problem+json", headers=headers)

    return answer


def document(content: dict[str, Any]) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(content)

    return answer


def text(content: str, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=content, status=status, headers=headers, content_type="text/html")

    return answer


def image(content: bytes) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="image/webp")

    return answer
