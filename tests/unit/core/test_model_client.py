"""The client of a model service: whatever it is answered is an error of ours, and what one picture alone is answered is told as that."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import ModelCrashed, ModelUnreachable, Overloaded
from core.model_client import ModelClient
from core.schemas import ImageAnalysis, Priority
from core.web import json_answer
from tests.fakes import picture

_WELL = ImageAnalysis(content_hash="0" * 64, width=1, height=1, format="PNG", fingerprint="f1", embeddings=())

Answer = Callable[[bytes], web.Response]


@asynccontextmanager
async def _answering(answer: Answer) -> AsyncIterator[ModelClient]:
    async def meet(request: web.Request) -> web.Response:
        return answer(await request.read())

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", meet)
    async with TestServer(app) as server, ModelClient(str(server.make_url("/"))) as client:
        yield client


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/html; charset=hex", b"no"),
        ("text/html; charset=idna", b"\xff"),
        ("application/json", b"[" * 200_000),
        ("application/json", b"1" * 5000),
        ("application/json", b"[]"),
    ],
)
@pytest.mark.parametrize("status", [200, 500])
async def test_whatever_garbage_comes_is_an_outage(status: int, content_type: str, body: bytes) -> None:
    def garbage(_: bytes) -> web.Response:
        return web.Response(status=status, body=body, headers={"Content-Type": content_type})

    async with _answering(garbage) as client:
        for asked in (client.analyse(b"a picture"), client.embed_texts(["a"]), client.info(), client.health()):
            with pytest.raises(ModelUnreachable):
                await asked


async def test_nobody_is_told_to_come_back_in_ten_to_the_four_hundredth_seconds() -> None:
    def later(_: bytes) -> web.Response:
        return web.json_response({"code": "overloaded", "detail": "x"}, status=503, headers={"Retry-After": "9" * 400})

    async with _answering(later) as client:
        with pytest.raises(Overloaded) as refused:
            await client.analyse(b"a picture")
    assert refused.value.retry_after_s <= 3600


def _too_large(_: bytes) -> web.Response:
    return web.Response(status=413, text="<html>413 Request Entity Too Large</html>", content_type="text/html")


def _null(_: bytes) -> web.Response:
    return web.Response(text=_WELL.model_dump_json().replace('"width":1', '"width":null'), content_type="application/json")


def _no_json(_: bytes) -> web.Response:
    return web.Response(text="<html>welcome</html>", content_type="text/html")


def _of_another_version(_: bytes) -> web.Response:
    return web.Response(text=_WELL.model_dump_json().replace('"width":1', '"width":1,"new":1'), content_type="application/json")


def _gone(_: bytes) -> web.Response:
    return web.Response(status=502, text="<html>502 Bad Gateway</html>", content_type="text/html")


def _only(poison: bytes, answer: Answer) -> Answer:
    return lambda asked: answer(asked) if asked == poison else json_answer(_WELL)


@pytest.mark.parametrize("answer", [_too_large, _null, _no_json])
async def test_an_answer_that_cannot_be_read_counts_against_its_picture_where_others_are_answered_well(answer: Answer) -> None:
    """Whoever waited for the service to be well would wait for ever, and everybody behind it."""
    poison = picture("red")
    async with _answering(_only(poison, answer)) as client:
        with pytest.raises(ModelCrashed, match="of another picture it answers well"):
            await client.analyse(poison)
        assert await client.analyse(picture("blue")) == _WELL
        with pytest.raises(ModelUnreachable):  # somebody waits, and another service may answer
            await client.analyse(poison, priority=Priority.QUERY)


@pytest.mark.parametrize("answer", [_too_large, _null, _no_json, _of_another_version, _gone])
async def test_no_picture_is_blamed_where_no_answer_can_be_read(answer: Answer) -> None:
    async with _answering(answer) as client:
        with pytest.raises(ModelUnreachable):
            await client.analyse(picture("red"))


@pytest.mark.parametrize("answer", [_of_another_version, _gone])
async def test_no_picture_is_blamed_for_an_update_or_for_a_service_behind_a_proxy_that_is_away(answer: Answer) -> None:
    poison = picture("red")
    async with _answering(_only(poison, answer)) as client:
        with pytest.raises(ModelUnreachable):
            await client.analyse(poison)
