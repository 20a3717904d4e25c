"""Secrets in logs, answers, metrics and errors; and whether a request can make a service ask somebody else."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData, web
from aiohttp.test_utils import TestServer

from tests.attacks import talkative
from tests.attacks.services import SERVICES, attacked
from tests.fakes import picture

_SECRETS = (talkative.JWT, talkative.OLD, talkative.KEY, talkative.QDRANT, talkative.WRONG)


def _run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, **environment},
    )


def test_at_debug_level_nothing_that_is_secret_is_logged_answered_or_measured(tmp_path: Path) -> None:
    told = _run("tests.attacks.talkative", str(tmp_path))
    assert told.returncode == 0, told.stderr[-3000:]
    answers, _, tokens = told.stdout.rpartition("TOKENS ")
    log = told.stderr
    assert log.count("request_answered") > 25
    assert "request_failed" in log
    assert "RuntimeError" in log
    assert "request_unreadable" in log
    for secret in _SECRETS:
        for form in (secret, secret[:20], secret.encode().hex()):
            assert form not in log, secret
            assert form not in answers, secret
    assert len(tokens.split()) >= 2
    for token in tokens.split():
        header, claims, signature = token.split(".")
        assert header
        assert claims not in log
        assert claims not in answers
        assert signature not in log + answers


_OTHERS = [pytest.param(name, marks=pytest.mark.long) for name in ("watcher", "model_service", "standalone")]


@pytest.mark.parametrize("service", ["searchsvc", *_OTHERS])
def test_a_start_that_fails_repeats_no_secret(service: str, tmp_path: Path) -> None:
    told = _run(
        service, JWT_SECRETS=f"a b:{talkative.JWT}", API_KEYS=f"sha256:{talkative.KEY}", QDRANT_API_KEY=talkative.QDRANT, PORT="no port",
        QDRANT_URL="http://127.0.0.1:1", DATA_DIR=str(tmp_path / "state"), IMAGES_DIR=str(tmp_path / "images"), LOG_LEVEL="debug",
    )  # fmt: skip
    assert told.returncode in {1, 2}
    assert "\n  PORT: " in told.stderr
    for secret in _SECRETS:
        assert secret not in told.stderr + told.stdout


# --- asking somebody else ---------------------------------------------------------------------------------------------


class _Watched:
    """Connections that this process opens. An audit hook stays for good, so there is one, which only writes while it is told to."""

    def __init__(self) -> None:
        self.connected: list[Any] | None = None
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.connected is not None and event == "socket.connect":
            self.connected.append(arguments[1])
        elif self.connected is not None and event == "socket.getaddrinfo":
            self.connected.append(arguments[:2])

    @contextmanager
    def __call__(self) -> Iterator[list[Any]]:
        self.connected = []
        try:
            yield self.connected
        finally:
            self.connected = None


@pytest.fixture(scope="module")
def watched() -> _Watched:
    return _Watched()


@pytest.mark.parametrize("name", SERVICES)
async def test_nothing_in_a_request_makes_a_service_ask_anybody(name: str, watched: _Watched, tmp_path: Path) -> None:
    asked: list[str] = []

    async def canary(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response()

    app = web.Application()
    app.router.add_route("*", "/{any:.*}", canary)
    async with TestServer(app) as elsewhere, attacked(name, tmp_path) as service:
        url = str(elsewhere.make_url("/canary.png"))
        await service.ask("GET", "/health/live")
        with watched() as connected:
            for method, path in service.routes():
                for options in _luring(url):
                    await service.ask(method, path, **options)
            await asyncio.sleep(0.3)
        assert asked == []
        own = ("127.0.0.1", service.port)
        assert [address for address in connected if address not in {own, (own[0], str(own[1])), own[:1]}] == []


def _luring(url: str) -> list[dict[str, Any]]:
    """Everything that somewhere made a server fetch: addresses in bodies, headers, queries, names and in pictures."""
    names = (
        "url",
        "file",
        "image",
        "image_url",
        "path",
        "callback",
        "webhook",
        "text",
        "cursor",
        "jku",
        "src",
        "image_id",
        "folder",
        "name",
    )
    svg = f"<svg xmlns='http://www.w3.org/2000/svg'><image href='{url}'/></svg>".encode()
    xml = f'<!DOCTYPE a [<!ENTITY b SYSTEM "{url}">]><a>&b;</a>'.encode()
    forms = []
    for content in (svg, xml, url.encode(), picture("red") + svg):
        form = FormData()
        form.add_field("file", content, filename=url)
        form.add_field("text", url)
        forms.append({"data": form})
    headers = dict.fromkeys(
        ("Referer", "X-Forwarded-Host", "X-Original-URL", "X-Callback", "Link", "SOAPAction", "From", "Profile"), url
    )
    return [
        {"json": dict.fromkeys(names, url)}, {"json": {"text": url}}, {"json": {"jwt": url, "user_feedback": 1}},
        {"params": dict.fromkeys(names, url)},
        {"headers": headers}, {"data": xml, "headers": {"Content-Type": "application/xml"}}, *forms,
    ]  # fmt: skip
