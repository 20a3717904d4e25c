"""One client that asks without pause, a flood of addresses, and addresses that are only claimed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from aiohttp import hdrs

from core.errors import TooManyRequests
from searchsvc.app import create_app
from searchsvc.callers import Callers
from searchsvc.limiting import kind_of
from searchsvc.limits import Kind, RateLimits
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, picture
from tests.unit.searchsvc.conftest import MakeWorld, World

EACH = dict.fromkeys(Kind, 1.0)


def _taken(limits: RateLimits, times: int, client: str = "a", kind: Kind = Kind.SEARCH) -> int:
    taken = 0
    for _ in range(times):
        try:
            limits.take(kind, client)
            taken += 1
        except TooManyRequests:
            pass
    return taken


def test_a_client_may_ask_twenty_seconds_worth_at_once_and_then_at_its_rate() -> None:
    now = 0.0
    limits = RateLimits(dict.fromkeys(Kind, 5.0), clock=lambda: now)
    assert _taken(limits, 500) == 100
    assert _taken(limits, 500, client="b") == 100, "another client is another matter"
    assert _taken(limits, 500, kind=Kind.RATING) == 100, "and another kind"
    now = 10.0
    assert _taken(limits, 500) == 50
    with pytest.raises(TooManyRequests) as refused:
        limits.take(Kind.SEARCH, "a")
    assert refused.value.retry_after_s == pytest.approx(0.2)
    now = 1e6
    assert _taken(limits, 500) == 100


def test_being_refused_costs_nothing_more() -> None:
    now = 0.0
    limits = RateLimits(EACH, clock=lambda: now)
    _taken(limits, 10_000)
    now = 5.0
    assert _taken(limits, 10) == 5


def test_a_flood_of_addresses_takes_bounded_memory() -> None:
    limits = RateLimits(EACH, most_buckets=1000)
    for n in range(200_000):
        limits.take(Kind.SEARCH, f"net-{n}")
    assert len(limits) == 1000
    held = sum(sys.getsizeof(value) for value in limits._levels.items()) + sys.getsizeof(limits._levels)
    assert held < 1_000_000


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ([], "203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ([], "127.0.0.1", ["198.51.100.1"], "127.0.0.1"),
        (["10.0.0.0/8"], "203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        (["10.0.0.0/8"], "10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.2", ["1.1.1.1, 198.51.100.1"], "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.2", ["1.1.1.1", "198.51.100.1, 10.0.0.9"], "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.2", ["10.0.0.3, 10.0.0.4"], "10.0.0.3"),
        (["10.0.0.0/8"], "10.0.0.2", [], "10.0.0.2"),
        (["10.0.0.0/8"], "10.0.0.2", ["127.0.0.1, evil"], "evil"),
        (["10.0.0.2"], "::ffff:10.0.0.2", ["198.51.100.1"], "198.51.100.1"),
        (["fd00::/8"], "fd00::2", ["2001:db8::5"], "2001:db8::5"),
        (["10.0.0.2"], None, ["198.51.100.1"], ""),
    ],
)
def test_only_a_trusted_proxy_says_who_asks_and_only_what_it_added_itself(
    trusted: list[str], peer: str | None, forwarded: list[str], expected: str
) -> None:
    assert Callers(trusted).address(peer, forwarded) == expected


def test_every_route_that_changes_something_is_of_a_kind(tmp_path: Path) -> None:
    settings = SearchSettings(images_dir=tmp_path, data_dir=tmp_path)
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog())
    kinds = {
        (route.method, route.resource.canonical): kind_of(route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None
    }
    assert all(kind is not None for (method, _), kind in kinds.items() if method not in {hdrs.METH_GET, hdrs.METH_HEAD})
    assert kinds["POST", "/api/v1/search-image"] is Kind.SEARCH
    assert kinds["POST", "/api/v1/create-feedback"] is Kind.RATING
    assert kinds["POST", "/api/v1/images"] is Kind.WRITING
    assert kinds["GET", "/api/v1/status"] is None


SLOW = {"searches_per_s": 0.5, "ratings_per_s": 0.5, "writes_per_s": 0.5, "trusted_proxies": "127.0.0.1"}  # ten at once


async def _asked(world: World, path: str, address: str, body: Any, **headers: str) -> tuple[int, dict[str, str], dict[str, Any]]:
    answer = await world.client.post(path, json=body, headers={"X-Forwarded-For": address, **headers})
    return answer.status, dict(answer.headers), json.loads(await answer.text())


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/v1/search-image", {"text": "red"}),
        ("/api/v1/compare-models", {"text": "red"}),
        ("/api/v1/create-feedback", {"user_feedback": 5, "jwt": "x"}),
        (f"/api/v1/images/{'0' * 64}/segment", {"mode": "quick"}),
        ("/api/v1/images", {}),
    ],
)
async def test_beyond_the_rate_it_is_429_with_a_time_and_others_go_on(make_world: MakeWorld, path: str, body: Any) -> None:
    world = await make_world(**SLOW)
    statuses = [(await _asked(world, path, "198.51.100.1", body))[0] for _ in range(12)]
    assert 429 not in statuses[:10]
    assert statuses[10:] == [429, 429]
    calls = world.embedder.text_calls
    status, headers, problem = await _asked(world, path, "198.51.100.1", body)
    assert (status, problem["code"], headers["Content-Type"].split(";")[0]) == (
        429,
        "too_many_requests",
        "application/problem+json",
    )
    assert 1 <= int(headers["Retry-After"]) <= 2
    assert world.embedder.text_calls == calls
    assert (await _asked(world, path, "198.51.100.2", body))[0] != 429
    assert (await world.client.get("/api/v1/status", headers={"X-Forwarded-For": "198.51.100.1"})).status == 200


async def test_addresses_of_one_household_count_as_one_and_a_key_is_one_client_wherever_it_is(make_world: MakeWorld) -> None:
    world = await make_world(**SLOW, api_keys="key-of-a-client-1,key-of-a-client-2")
    search = {"text": "red"}
    for n in range(10):
        assert (await _asked(world, "/api/v1/search-image", f"2001:db8:0:1::{n:x}", search))[0] == 200
    assert (await _asked(world, "/api/v1/search-image", "2001:db8:0:1:ffff::1", search))[0] == 429
    assert (await _asked(world, "/api/v1/search-image", "2001:db8:0:2::1", search))[0] == 200
    for n in range(12):
        key = {"Authorization": "Bearer key-of-a-client-1"}
        assert (await _asked(world, "/api/v1/search-image", f"198.51.100.{n}", search, **key))[0] == (200 if n < 10 else 429)
    other = {"Authorization": "Bearer key-of-a-client-2"}
    assert (await _asked(world, "/api/v1/search-image", "198.51.100.1", search, **other))[0] == 200
    wrong = {"Authorization": "Bearer made-up"}
    assert (await _asked(world, "/api/v1/search-image", "2001:db8:0:1::9", search, **wrong))[0] == 429, "a made-up key is none"


async def test_this_machine_is_not_limited_and_a_claimed_address_changes_nothing(make_world: MakeWorld) -> None:
    world = await make_world(**{**SLOW, "trusted_proxies": ""})
    await world.add(picture("red"), "red.png")
    for n in range(30):
        claimed = "198.51.100.1" if n % 2 else f"198.51.100.{n}"
        assert (await _asked(world, "/api/v1/search-image", claimed, {"text": "red"}))[0] == 200
