"""What a web page elsewhere can have a browser do: cross-site requests, and names that were pointed here (DNS rebinding)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import FormData

from core.errors import Forbidden
from core.gate import Gate
from core.hosts import KnownHosts
from tests.attacks.services import SERVICES, attacked
from tests.fakes import picture

REBOUND = (
    "evil.example", "evil.example:3000", "127.0.0.1.evil.example", "localhost.evil.example", "127.0.0.1@evil.example",
    "evil.example#127.0.0.1", "xn--lcalhost-b5a.example", "127.0.0.1 evil.example", "evil.example\t", "http://127.0.0.1",
    "[::1].evil.example", "localhost:3000:evil", "127.0.0.1:",
)  # fmt: skip


def _is_heard(hosts: KnownHosts, method: str = "GET", **headers: str) -> bool:
    try:
        Gate(hosts).check(method, {name.replace("_", "-"): value for name, value in headers.items()})
    except Forbidden:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:3000", "localhost:3000", "LOCALHOST", "localhost.", "[::1]:3000", "127.9.9.9", "app.localhost", "0.0.0.0:3000"],
)
def test_a_service_on_loopback_goes_by_the_names_of_loopback(host: str) -> None:
    assert _is_heard(KnownHosts(listens_on="127.0.0.1"), Host=host)
    assert _is_heard(KnownHosts(listens_on="localhost"), Host=host)


@pytest.mark.parametrize("host", [*REBOUND, "192.168.1.4:3000", "nas:3000", "nas.local", "8.8.8.8"])
def test_and_by_no_other(host: str) -> None:
    assert not _is_heard(KnownHosts(listens_on="127.0.0.1"), Host=host)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:3000", "localhost:3000", "searchsvc:3000", "model_service:8001", "my-nas", "192.168.1.4:3000", "10.0.0.7", "[fe80::1]:3000",
        "nas.local:3000", "host.docker.internal:3000", "nas.lan", "photos.home.arpa", "0.0.0.0:3000",
    ],
)  # fmt: skip
def test_beyond_loopback_it_goes_by_addresses_and_names_that_no_stranger_can_own(host: str) -> None:
    assert _is_heard(KnownHosts(listens_on="0.0.0.0"), Host=host)
    assert _is_heard(KnownHosts(listens_on="::"), Host=host)


@pytest.mark.parametrize("host", REBOUND)
def test_beyond_loopback_a_name_that_anybody_could_have_bought_must_be_allowed(host: str) -> None:
    assert not _is_heard(KnownHosts(listens_on="0.0.0.0"), Host=host)
    assert not _is_heard(KnownHosts(listens_on="0.0.0.0", allowed=["good.example", "*.good.example"]), Host=host)


def test_allowed_names_are_heard() -> None:
    for listens_on in ("127.0.0.1", "0.0.0.0"):
        known = KnownHosts(listens_on=listens_on, allowed=["photos.example.org", "*.Nas.example"])
        for host in ("photos.example.org", "Photos.Example.Org:443", "a.nas.example", "a.b.nas.example:8443"):
            assert _is_heard(known, Host=host)
        for host in ("example.org", "nas.example", "xphotos.example.org", "evilnas.example", "photos.example.org.evil.example"):
            assert not _is_heard(known, Host=host)
        assert _is_heard(KnownHosts(listens_on=listens_on, allowed=["*"]), Host="anything.example")
    assert _is_heard(KnownHosts(listens_on="photos.example.org"), Host="photos.example.org:3000")


LOCAL = {"Host": "127.0.0.1:3000"}
OWN = (
    {}, {"Origin": "http://127.0.0.1:3000"}, {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:3000"},
    {"Sec-Fetch-Site": "none"}, {"Sec-Fetch-Site": "same-origin", "Origin": "https://proxied.example"},
)  # fmt: skip
FOREIGN = (
    {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": ""}, {"Origin": "http://127.0.0.1:9999"}, {"Origin": "http://localhost:3000"},
    {"Origin": "file://"}, {"Origin": "http://127.0.0.1:3000.evil.example"}, {"Origin": "http://127.0.0.1:3000@evil.example"},
    {"Origin": "http://["}, {"Origin": "http://[::1"}, {"Origin": "//"},
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:3000"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, {"Sec-Fetch-Site": "anything"},
)  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH"])
def test_writing_is_for_programs_and_for_pages_of_ones_own(method: str) -> None:
    known = KnownHosts(listens_on="127.0.0.1")
    assert [told for told in OWN if not _is_heard(known, method, **LOCAL, **told)] == []
    assert [told for told in FOREIGN if _is_heard(known, method, **LOCAL, **told)] == []
    proxied = KnownHosts(listens_on="127.0.0.1", allowed=["photos.example.org"])
    assert _is_heard(proxied, method, **LOCAL, Origin="https://photos.example.org"), "behind a proxy that renames the host"


@pytest.mark.parametrize("dest", ["image", "script", "iframe", "object", "embed", "video", "empty", "style"])
def test_what_a_page_elsewhere_builds_in_is_not_read_to_it_but_a_link_may_be_followed(dest: str) -> None:
    known = KnownHosts(listens_on="127.0.0.1")
    for site in ("cross-site", "same-site"):
        for mode in ("no-cors", "cors", "navigate"):
            assert not _is_heard(known, **LOCAL, Sec_Fetch_Site=site, Sec_Fetch_Mode=mode, Sec_Fetch_Dest=dest)
        assert _is_heard(known, **LOCAL, Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate", Sec_Fetch_Dest="document")
    assert _is_heard(known, **LOCAL, Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="no-cors", Sec_Fetch_Dest=dest)


def test_who_holds_a_key_is_no_page_of_somebody_else() -> None:
    gate = Gate(KnownHosts(listens_on="127.0.0.1"), is_known=lambda authorization: authorization == "Bearer right")
    told = {"Host": "photos.example", "Origin": "https://photos.example", "Sec-Fetch-Site": "cross-site"}
    gate.check("POST", {**told, "Authorization": "Bearer right"})
    with pytest.raises(Forbidden):
        gate.check("POST", {**told, "Authorization": "Bearer wrong"})


@pytest.mark.parametrize("name", SERVICES)
async def test_every_route_of_every_service_asks_by_which_name_and_from_where_it_is_called(name: str, tmp_path: Path) -> None:
    async with attacked(name, tmp_path) as service:
        before = service.state()
        routes = [*service.routes(), ("GET", "/nothing"), ("POST", "/nothing")]
        assert len(routes) > 8
        for method, path in routes:
            for told in ({"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
                status, headers, content = await service.ask(method, path, headers=told)
                assert status == 403, (method, path, told)
                assert method == "HEAD" or json.loads(content)["code"] == "forbidden"
                assert not [header for header in headers if header.lower().startswith("access-control-")]
            if method not in {"GET", "HEAD"}:
                assert (await service.ask(method, path, headers={"Origin": "https://evil.example"}))[0] == 403
            preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": method}
            status, headers, _ = await service.ask("OPTIONS", path, headers=preflight)
            assert status in {404, 405}
            assert not [header for header in headers if header.lower().startswith("access-control-")]
        assert service.state() == before


def _simple_posts() -> list[dict[str, Any]]:
    """The kinds of content that a page may send anywhere without asking first."""
    form = FormData()
    form.add_field("file", picture("blue"), filename="planted.png", content_type="image/png")
    form.add_field("text", "red")
    told = json.dumps({"text": "red", "user_feedback": 1, "jwt": "x", "mode": "full", "path": "red.png", "texts": ["red"]})
    return [
        {"data": form}, {"data": {"text": "red"}}, {"data": told.encode(), "headers": {"Content-Type": "text/plain"}},
        {"data": told.encode(), "headers": {"Content-Type": "text/plain; application/json"}}, {"data": picture("blue")},
        {"data": told.encode(), "headers": {"Content-Type": "application/json"}},
    ]  # fmt: skip


@pytest.mark.parametrize("name", SERVICES)
async def test_a_page_elsewhere_posts_whatever_it_can_everywhere_and_nothing_changes(name: str, tmp_path: Path) -> None:
    async with attacked(name, tmp_path) as service:
        before = service.state()
        for method, path in service.routes():
            if method != "POST":
                continue
            for told in ({"Origin": "https://evil.example"}, {"Origin": "null", "Sec-Fetch-Site": "cross-site"}):
                for post in _simple_posts():
                    headers = {**post.pop("headers", {}), **told}
                    assert (await service.ask("POST", path, headers=headers, **post))[0] == 403
        assert service.state() == before


async def test_with_two_names_or_none_a_request_gains_nothing(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path) as service:
        two = b"GET /api/v1/status HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert b" 400 " in (await service.raw(two)).partition(b"\r\n")[0]
        absolute = b"GET http://127.0.0.1/api/v1/status HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
        assert (await service.raw(absolute)).startswith(b"HTTP/1.1 403 ")
        old = b"GET /health/live HTTP/1.0\r\n\r\n"
        assert b" 200 OK" in (await service.raw(old)).partition(b"\r\n")[0]


async def test_what_programs_send_is_heard_as_before(tmp_path: Path) -> None:
    async with attacked("searchsvc", tmp_path, host="0.0.0.0", api_keys="a-key-of-the-operator") as service:
        for host in ("127.0.0.1:3000", "localhost:3000", "searchsvc:3000", "192.168.1.4"):
            status, _, content = await service.ask(
                "POST", "/api/v1/search-image", json={"text": "red"}, headers={"Host": host, "User-Agent": "curl/8"}
            )
            assert (status, json.loads(content)["matches"][0]["image_name"]) == (200, "red.png")
        form = FormData()
        form.add_field("file", picture("blue"), filename="blue.png")
        key = {"Authorization": "Bearer a-key-of-the-operator", "Host": "searchsvc:3000"}
        assert (await service.ask("POST", "/api/v1/images", data=form, headers=key))[0] == 202
