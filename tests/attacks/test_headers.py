"""What every answer tells a browser not to do with it, and what a served file can never be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks.services import SERVICES, Attacked, attacked
from tests.fakes import index, picture
from tests.unit.searchsvc.conftest import World

EXACT = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
ACTIVE = re.compile(r"text/html|svg|xml|javascript|ecmascript|x-shockwave|pdf", re.IGNORECASE)


def _assert_safe(headers: dict[str, str], of: object) -> None:
    for name, value in EXACT.items():
        assert headers.get(name) == value, (of, name)
    policy = headers.get("Content-Security-Policy", "")
    assert "default-src 'none'" in policy or "default-src 'self'" in policy, (of, policy)
    assert "frame-ancestors 'none'" in policy, (of, policy)
    assert "unsafe-eval" not in policy, of
    assert re.search(r"script-src[^;]*'unsafe-inline'", policy) is None, of
    assert "Access-Control-Allow-Origin" not in headers, of
    assert "Server" not in headers or "aiohttp" not in headers["Server"], of
    assert headers["Cache-Control"], of


async def _answers(service: Attacked) -> list[tuple[str, dict[str, str]]]:
    """Of every route: as it is meant, as a wrong method, with rubbish, and by a wrong name."""
    told = []
    for method, path in [*service.routes(), ("GET", "/nothing")]:
        for other, options in (
            (method, {}), ("PROPFIND", {}), (method, {"headers": {"Host": "evil.example"}}), (method, {"data": b"\0rubbish"}),
        ):  # fmt: skip
            status, headers, _ = await service.ask(other, path, **options)
            told.append((f"{other} {path} -> {status}", headers))
    return told


@pytest.mark.parametrize("name", SERVICES)
async def test_every_answer_of_every_service_carries_the_headers(name: str, tmp_path: Path) -> None:
    async with attacked(name, tmp_path) as service:
        answers = await _answers(service)
        assert {told[-3:] for told, _ in answers} >= {"200", "403", "404", "405"}
        for told, headers in answers:
            _assert_safe(headers, told)


@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"rubbish\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nBroken Header: 1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + b"\r\n",
    ],
    ids=["rubbish", "version", "blank in a name", "TLS", "both lengths", "two lengths", "long header", "long address", "many headers"],
)  # fmt: skip
async def test_what_is_no_request_is_answered_in_the_one_shape_too(name: str, request_bytes: bytes, tmp_path: Path) -> None:
    async with attacked(name, tmp_path) as service:
        answer = (await service.raw(request_bytes)).decode()
        head, _, content = answer.partition("\r\n\r\n")
        assert re.match(r"HTTP/1\.[01] 4(00|31) ", head), head
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
        assert headers["Content-Type"].startswith("application/problem+json")
        _assert_safe(headers, request_bytes[:40])
        assert headers["X-Request-ID"] in content
        assert "xxxx" not in content


ACTIVE_CONTENT = b"<html><script>alert(1)</script><svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/></html>"
POLYGLOTS = {
    "a GIF that is a script": b"GIF89a=1;alert(1);//" + ACTIVE_CONTENT,
    "a picture with a page behind it": picture("red") + ACTIVE_CONTENT,
    "a page": ACTIVE_CONTENT,
    "an SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
    "a BMP that is a page": b"BM" + ACTIVE_CONTENT,
    "a PDF": b"%PDF-1.7 " + ACTIVE_CONTENT,
    "a page with a byte order mark": b"\xef\xbb\xbf" + ACTIVE_CONTENT,
    "UTF-7": b"+ADw-script+AD4-alert(1)+ADw-/script+AD4-",
    "an ISO file that is a page": b"\0\0\0\x20ftypavif" + ACTIVE_CONTENT,
}


@pytest.mark.parametrize("kind", POLYGLOTS)
@pytest.mark.parametrize("file_name", ["x.html", "x.svg", 'x.js"; filename="evil.html', "x\r\nX-Evil: 1.html", "x.png"])
async def test_a_file_is_never_served_as_something_that_runs(world: World, kind: str, file_name: str) -> None:
    """Even where it lies in the folder and the catalog knows it: nobody asks the decoder when a file is fetched."""
    content = POLYGLOTS[kind]
    (world.images / file_name).write_bytes(content)
    image_id = await index(world.embedder, world.vectors, world.catalog, picture("red"), file_name)
    world.catalog.records[image_id] = world.catalog.records[image_id].model_copy(update={"bytes": len(content)})
    answer = await world.client.get(f"/api/v1/images/{image_id}/file", headers={"Accept": "text/html"})
    assert answer.status == 200
    assert await answer.read() == content
    assert not ACTIVE.search(answer.content_type), answer.content_type
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert re.search(r"default-src 'none';.*sandbox(;|$)", answer.headers["Content-Security-Policy"])
    assert "X-Evil" not in answer.headers
    assert answer.headers["Content-Disposition"].count(";") == 1


async def test_an_upload_that_only_begins_like_a_picture_is_refused(world: World) -> None:
    for kind in POLYGLOTS.keys() - {"a picture with a page behind it"}:
        assert (await world.upload(POLYGLOTS[kind], "x.html")).status in {415, 422}, kind
    assert list(world.images.iterdir()) == []
    taken = await world.upload(POLYGLOTS["a picture with a page behind it"], "x.html")
    assert taken.status == 202
    assert [path.suffix for path in world.images.iterdir()] == [".png"]
