"""Who may write."""

from __future__ import annotations

import pytest

from core.errors import Unauthorized
from searchsvc.access import WriteAccess, is_loopback
from tests.fakes import picture
from tests.unit.searchsvc.conftest import MakeWorld

LOCAL = "127.0.0.1:3000"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True), ("LOCALHOST", True),
     ("0.0.0.0", False), ("::", False), ("192.168.1.4", False), ("", False), ("example.org", False), ("127.0.0.1.evil.org", False)],
)  # fmt: skip
def test_loopback_is_told_from_everything_else(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_on_loopback_without_keys_anybody_may_write() -> None:
    access = WriteAccess((), listens_on="127.0.0.1")
    access.check(authorization=None, origin=None, host=LOCAL)
    access.check(authorization=None, origin="http://127.0.0.1:3000", host=LOCAL)
    assert not access.needs_key


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://evil.example", LOCAL),
        ("null", LOCAL),
        ("http://127.0.0.1:9999", LOCAL),
        ("http://evil.example:3000", "evil.example:3000"),
        ("http://[", LOCAL),
        ("http://\N{ACCOUNT OF}", LOCAL),
        ("http://[", "["),
        ("", ""),
    ],
)
def test_on_loopback_pages_of_other_sites_may_not_write(origin: str, host: str) -> None:
    with pytest.raises(Unauthorized):
        WriteAccess((), listens_on="127.0.0.1").check(authorization=None, origin=origin, host=host)


def test_beyond_loopback_without_keys_nobody_may_write_and_is_told_what_to_set() -> None:
    with pytest.raises(Unauthorized, match="API_KEYS"):
        WriteAccess((), listens_on="0.0.0.0").check(authorization="Bearer x", origin=None, host=LOCAL)


@pytest.mark.parametrize("listens_on", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", "Basic one", "one", "Bearer one two", "Bearer " + "o" * 600, "Bearer \udcff"],
)
def test_where_keys_are_set_only_they_may_write(listens_on: str, authorization: str | None) -> None:
    access = WriteAccess(("one", "two"), listens_on=listens_on)
    with pytest.raises(Unauthorized):
        access.check(authorization=authorization, origin=None, host=LOCAL)
    for right in ("Bearer one", "bearer two"):
        access.check(authorization=right, origin="https://elsewhere.example", host=LOCAL)


async def test_every_writing_route_asks_for_the_key_and_no_other_does(make_world: MakeWorld) -> None:
    world = await make_world(api_keys="first, second")
    image_id = await world.add(picture("red"), "red.png")
    image = f"/api/v1/images/{image_id}"
    for method, path in (("POST", "/api/v1/images"), ("POST", f"{image}/segment"), ("DELETE", image)):
        refused = await world.client.request(method, path)
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert (await refused.json())["code"] == "unauthorized"
    for path in (image, f"{image}/file", f"{image}/thumbnail", f"{image}/segments", "/api/v1/status", "/api/v1/failures"):
        assert (await world.client.get(path)).status == 200
    await world.search(text="red")
    key = {"Authorization": "Bearer second"}
    assert (await world.client.post(f"{image}/segment", json={"mode": "quick"}, headers=key)).status == 200
    assert (await world.client.delete(image, headers=key)).status == 204
