"""A real browser shows a page of another origin that tries what pages can, against a service on loopback."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from playwright.async_api import async_playwright

from tests.attacks.services import SERVICES, Attacked, attacked
from tests.browser import QUIET, chromium
from tests.fakes import picture

_TRIALS = """
async ({target, posts, gets, picture}) => {
  const bytes = Uint8Array.from(atob(picture), (character) => character.charCodeAt(0));
  const reached = {};
  const read = async (name, ask) => {
    try { const answer = await ask(); reached[name] = answer.type === 'opaque' ? 'opaque' : `${answer.status} ${await answer.text()}`; }
    catch (error) { reached[name] = 'refused'; }
  };
  const form = () => { const made = new FormData(); made.append('file', new Blob([bytes]), 'planted.png'); made.append('text', 'red'); return made; };
  for (const path of posts) {
    const told = JSON.stringify({text: 'red', user_feedback: 1, jwt: 'x', mode: 'full', path: 'red.png', texts: ['red']});
    await read(`no-cors form ${path}`, () => fetch(target + path, {method: 'POST', mode: 'no-cors', body: form(), credentials: 'include'}));
    await read(`no-cors text ${path}`, () => fetch(target + path, {method: 'POST', mode: 'no-cors', body: told}));
    await read(`cors json ${path}`, () => fetch(target + path, {method: 'POST', body: told, headers: {'Content-Type': 'application/json'}}));
    await read(`cors form ${path}`, () => fetch(target + path, {method: 'POST', body: form()}));
    navigator.sendBeacon(target + path, form());
  }
  for (const path of gets) {
    await read(`cors ${path}`, () => fetch(target + path));
    await read(`no-cors ${path}`, () => fetch(target + path, {mode: 'no-cors'}));
    await read(`delete ${path}`, () => fetch(target + path, {method: 'DELETE'}));
    await read(`post ${path}`, () => fetch(target + path, {method: 'POST', mode: 'no-cors'}));
    for (const tag of ['img', 'script', 'video', 'link', 'object', 'embed', 'iframe']) {
      const made = document.createElement(tag);
      if (tag === 'link') { made.rel = 'stylesheet'; }
      const outcome = new Promise((done) => {
        made.onload = () => done(tag === 'iframe' || tag === 'object' || tag === 'embed' ? 'framed' : 'loaded');
        made.onerror = () => done('refused');
        setTimeout(() => done('refused'), 400);
      });
      if (tag === 'object') { made.data = target + path; } else if (tag === 'link') { made.href = target + path; } else { made.src = target + path; }
      document.body.append(made);
      const seen = await outcome;
      let inside = null;
      if (seen === 'framed') { try { inside = made.contentDocument && made.contentDocument.body.innerText; } catch (error) { inside = null; } }
      reached[`${tag} ${path}`] = seen === 'framed' ? (inside ? inside : 'refused') : seen;
    }
  }
  for (const path of posts) {
    for (const enctype of ['multipart/form-data', 'text/plain', 'application/x-www-form-urlencoded']) {
      const frame = Object.assign(document.createElement('iframe'), {name: `frame${Math.random()}`});
      const posted = Object.assign(document.createElement('form'), {action: target + path, method: 'POST', enctype, target: frame.name});
      const field = Object.assign(document.createElement('input'), {name: '{"text": "red", "x": "', value: '"}'});
      posted.append(field); document.body.append(frame, posted);
      const done = new Promise((resolve) => { frame.onload = resolve; setTimeout(resolve, 400); });
      posted.submit(); await done;
    }
  }
  reached.events = await new Promise((done) => {
    const source = new EventSource(target + '/api/v1/events');
    source.onmessage = () => done('heard'); source.addEventListener('status', () => done('heard'));
    source.onerror = () => { source.close(); done('refused'); };
  });
  reached.socket = await new Promise((done) => {
    const socket = new WebSocket(target.replace('http', 'ws') + '/api/v1/events');
    socket.onopen = () => done('open'); socket.onerror = () => done('refused');
  });
  return reached;
}
"""


@pytest.fixture
async def evil() -> AsyncIterator[TestServer]:
    """Another origin on loopback: another port is another origin, and the hardest case, since it is the same site."""

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>hostile</title><body>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    async with TestServer(app) as server:
        yield server


async def _tried(service: Attacked, evil: TestServer, *, evil_host: str, target: str) -> dict[str, Any]:
    routes = list(service.routes())
    asked = {
        "target": target,
        "posts": sorted({path for method, path in routes if method == "POST"}),
        "gets": sorted({path for method, path in routes if method == "GET" and not path.endswith("events")} | {"/"}),
        "picture": base64.b64encode(picture("blue")).decode(),
    }
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=[*QUIET, "--host-resolver-rules=MAP *.example 127.0.0.1"]
        )
        try:
            page = await browser.new_page()
            await page.goto(f"http://{evil_host}:{evil.port}/")
            told: dict[str, Any] = await page.evaluate(_TRIALS, asked)
            return told
        finally:
            await browser.close()


_EVERY = [
    pytest.param(name, host, marks=pytest.mark.long) for name in SERVICES for host in ("127.0.0.1", "localhost", "evil.example")
]


@pytest.mark.parametrize(("name", "evil_host"), [("searchsvc", "evil.example"), *_EVERY])
async def test_a_hostile_page_reads_nothing_and_changes_nothing(
    name: str, evil_host: str, evil: TestServer, tmp_path: Path
) -> None:
    async with attacked(name, tmp_path) as service:
        before = service.state()
        told = await _tried(service, evil, evil_host=evil_host, target=f"http://127.0.0.1:{service.port}")
        assert len(told) > 50
        assert {tried: outcome for tried, outcome in told.items() if outcome not in {"refused", "opaque"}} == {}
        assert service.state() == before


async def test_a_page_whose_own_name_was_pointed_here_reads_nothing(evil: TestServer, tmp_path: Path) -> None:
    """DNS rebinding: the page's own origin is the service, by a name that its owner pointed to loopback."""
    async with attacked("searchsvc", tmp_path) as service, async_playwright() as playwright:
        before = service.state()
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=[*QUIET, "--host-resolver-rules=MAP *.example 127.0.0.1"]
        )
        try:
            page = await browser.new_page()
            origin = f"http://rebound.example:{service.port}"
            first = await page.goto(f"{origin}/")
            assert first is not None
            assert first.status == 403
            for path in (
                "/api/v1/status",
                "/api/v1/failures",
                f"/api/v1/images/{service.image_id}/file",
                "/api/v1/feedback",
                "/metrics",
            ):
                answer = await page.goto(origin + path)
                assert answer is not None
                assert (answer.status, json.loads(await answer.text())["code"]) == (403, "forbidden")
        finally:
            await browser.close()
        assert service.state() == before


async def test_the_services_own_page_still_works_in_that_browser(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path) as service, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        try:
            page = await browser.new_page()
            await page.goto(f"{service.address}/")
            found = await page.evaluate(
                """async () => (await (await fetch('/api/v1/search-image', {method: 'POST', body: '{"text": "red"}',
                     headers: {'Content-Type': 'application/json'}})).json()).matches[0].image_name"""
            )
            assert found == "red.png"
            heard = await page.evaluate(
                "() => new Promise((done) => new EventSource('/api/v1/events').addEventListener('status', () => done(true)))"
            )
            assert heard is True
        finally:
            await browser.close()
