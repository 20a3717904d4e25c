"""Bodies that no client would send: every one is answered, none with a server error, and the service works on."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import multipart

from searchsvc import openapi
from searchsvc.operations import OPERATIONS
from tests.fakes import picture
from tests.unit.searchsvc.conftest import World

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body")  # of this client

DOCUMENT = openapi.document()
PUBLIC = sorted({operation.path for operation in OPERATIONS if operation.method == "post"} | {"/api/v1/search-image"})
FORMS = ("/api/v1/search-image", "/api/v1/images", "/api/v1/compare-models")
IMAGE = "0" * 64


def _seed() -> int:
    seed = int(os.environ.get("FUZZ_SEED", str(random.randrange(2**32))))
    print(f"FUZZ_SEED={seed}")
    return seed


async def _sent(world: World, path: str, body: bytes | AsyncIterator[bytes], **headers: str) -> int:
    """The status, of an answer that is no server error. Every refusal is a problem document."""
    started = time.monotonic()
    async with world.client.post(
        path.replace("{id}", IMAGE), data=body, headers=headers, skip_auto_headers=["Content-Type"]
    ) as answer:
        content = await answer.read()
    assert answer.status < 500 or (answer.status == 503 and "Retry-After" in answer.headers), (path, body, headers, content)
    if answer.status >= 400 and not content.startswith(
        b"Can not decode content-encoding"
    ):  # HTTP's, before it is a request of ours
        assert answer.content_type == "application/problem+json", (path, body, headers, content)
        assert json.loads(content)["status"] == answer.status
    assert time.monotonic() - started < 10
    return answer.status


async def _works(world: World) -> None:
    assert (await world.client.get("/health/live")).status == 200
    assert (await world.client.post("/api/v1/search-image", json={"text": "red"})).status == 200


@pytest.fixture
async def stocked(world: World) -> World:
    await world.add(picture("red"), "red.png")
    return world


# --- JSON --------------------------------------------------------------------------------------------------------------------------

JSONS: dict[str, bytes] = {
    "nothing": b"",
    "white space": b" \n",
    "a null": b"null",
    "a number": b"1",
    "a list": b"[]",
    "no UTF-8": b'{"text": "\xff\xfe"}',
    "UTF-16": '{"text": "red"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"text": "red"}',
    "half a surrogate": b'{"text": "\\ud800"}',
    "a surrogate key": b'{"\\udfff": 1}',
    "zero bytes": b'{"text": "a\\u0000b"}',
    "not a number": b'{"text": "red", "top_k": NaN}',
    "infinity": b'{"text": "red", "min_score": Infinity}',
    "a huge float": b'{"text": "red", "min_score": 1e999}',
    "a huge integer": b'{"text": "red", "top_k": ' + b"9" * 5_000 + b"}",
    "a hundred thousand lists": b"[" * 100_000,
    "lists, closed": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in objects": b'{"filter":' * 20_000 + b"1" + b"}" * 20_000,
    "the same key twice": b'{"text": "red", "text": ["blue"]}',
    "a million of white space": b" " * 900_000 + b'{"text": "red"}',
    "a megabyte of text": b'{"text": "' + b"x" * 900_000 + b'"}',
    "too large": b'{"text": "' + b"x" * 2_000_000 + b'"}',
    "a hundred thousand keys": json.dumps({f"k{n}": n for n in range(60_000)}).encode(),
    "many examples": json.dumps({"like": [{"image_id": IMAGE}] * 10_000}).encode(),
    "a prototype": b'{"__proto__": {"text": 1}, "constructor": 1, "__class__": 1}',
    "ends early": b'{"text": "red"',
    "goes on": b'{"text": "red"} {"text": "blue"}',
    "comments": b'/* */ {"text": "red"} // x',
}


@pytest.mark.parametrize("path", PUBLIC)
async def test_json_of_any_kind_is_answered(stocked: World, path: str) -> None:
    statuses = {name: await _sent(stocked, path, body, **{"Content-Type": "application/json"}) for name, body in JSONS.items()}
    print(path, Counter(statuses.values()))
    assert all(
        statuses[name] >= 400
        for name in ("nothing", "no UTF-8", "a hundred thousand lists", "ends early", "goes on", "too large")
    )
    await _works(stocked)


TYPES = (
    "application/json; charset=utf-7",
    "application/json; charset=no-such-thing",
    "application/json; charset=idna",
    "application/json; charset=zlib_codec",
    "application/json; charset=" + "x" * 4000,
    "application/json;;;=;",
    "APPLICATION/JSON",
    "application/problem+json",
    "text/plain",
    "image/png",
    "application/x-www-form-urlencoded",
    "multipart/mixed; boundary=x",
    "/",
    "x" * 4000,
)


@pytest.mark.parametrize("path", PUBLIC)
async def test_any_type_of_content_is_answered(stocked: World, path: str) -> None:
    for kind in TYPES:
        await _sent(stocked, path, b'{"text": "red"}', **{"Content-Type": kind})
    await _sent(stocked, path, b'{"text": "red"}')
    await _works(stocked)


@pytest.mark.parametrize("path", PUBLIC)
async def test_a_body_that_grows_when_it_is_unpacked_is_refused(stocked: World, path: str) -> None:
    bomb = b'{"text": "' + b"x" * 20_000_000 + b'"}'
    deflated = zlib.compress(bomb, 1)
    packed = {
        "gzip": gzip.compress(bomb, 1),
        "deflate": deflated,
        "br": deflated,
        "zstd": deflated,
        "gzip, gzip": deflated,
        "x": deflated,
    }
    for encoding, body in packed.items():
        status = await _sent(stocked, path, body, **{"Content-Type": "application/json", "Content-Encoding": encoding})
        assert status >= 400, encoding
    await _works(stocked)


# --- forms --------------------------------------------------------------------------------------------------------------------------

_PNG = picture("red")


def _part(name: str, content: bytes = b"red", *, head: str = "", file: str | None = None) -> bytes:
    named = f'; filename="{file}"' if file is not None else ""
    return f'--x\r\nContent-Disposition: form-data; name="{name}"{named}\r\n{head}\r\n'.encode() + content + b"\r\n"


_END = b"--x--\r\n"
FORM_BODIES: dict[str, bytes] = {
    "nothing": b"",
    "an end alone": _END,
    "no end": _part("text"),
    "an end in the head": b"--x\r\nContent-Disposition: form-data; name=tex" + _END,
    "a head without end": b"--x\r\nContent-Disposition: form-data; name=" + b"a" * 500_000,
    "a long head": _part("text", head="X-Long: " + "a" * 100_000 + "\r\n") + _END,
    "many heads": _part("text", head="".join(f"X-{n}: a\r\n" for n in range(5_000))) + _END,
    "a folded head": _part("text", head="X-A: b\r\n c\r\n\td\r\n") + _END,
    "a head without a colon": _part("text", head="nonsense\r\n") + _END,
    "a head that is no ASCII": b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\na\r\n' + _END,
    "many parts": b"".join(_part(f"k{n}") for n in range(5_000)) + _END,
    "a part twice": _part("text") + _part("text") + _END,
    "files twice": _part("file", _PNG, file="a.png") * 20 + _END,
    "the file last": _part("text") + _part("top_k", b"3") + _part("file", _PNG, file="a.png") + _END,
    "the file first": _part("file", _PNG, file="a.png") + _part("text") + _END,
    "no name": b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n" + _END,
    "no disposition": b"--x\r\n\r\na\r\n" + _END,
    "another disposition": b'--x\r\nContent-Disposition: attachment; filename="a"\r\n\r\na\r\n' + _END,
    "parts in parts": _part("file", b"--y\r\n\r\na\r\n--y--\r\n", head="Content-Type: multipart/mixed; boundary=y\r\n") + _END,
    "parts in parts, of itself": _part("file", b"--x\r\n\r\na\r\n--x--\r\n", head="Content-Type: multipart/mixed; boundary=x\r\n")
    + _END,
    "a part that says it is longer": _part("file", _PNG, head="Content-Length: 1000000\r\n", file="a") + _END,
    "a part that says it is shorter": _part("file", _PNG, head="Content-Length: 3\r\n", file="a") + _END,
    "a part of negative length": _part("file", _PNG, head="Content-Length: -1\r\n", file="a") + _END,
    "a part of no number's length": _part("file", _PNG, head="Content-Length: many\r\n", file="a") + _END,
    "base64": _part("file", b"!!!", head="Content-Transfer-Encoding: base64\r\n", file="a") + _END,
    "quoted-printable": _part("text", b"=", head="Content-Transfer-Encoding: quoted-printable\r\n") + _END,
    "a packed part": _part("file", gzip.compress(bytes(10**7)), head="Content-Encoding: gzip\r\n", file="a") + _END,
    "an unknown charset": _part("text", head="Content-Type: text/plain; charset=nothing\r\n") + _END,
    "the field of charsets": _part("_charset_", b"utf-7") + _part("text", b"+AG8-") + _END,
    "no UTF-8": _part("text", b"\xff\xfe") + _END,
    "zero bytes": _part("text", b"\0\0") + _part("folder", b"a\0b") + _END,
    "a name of zero bytes": _part("file", _PNG, file="a\0b.png") + _END,
    "a name that climbs": _part("file", _PNG, file="../../../../etc/passwd") + _END,
    "a name in words of another RFC": b"--x\r\nContent-Disposition: form-data; name*=utf-8''%ff%fe; filename*=x''%\r\n\r\na\r\n"
    + _END,
    "a name in many pieces": b"--x\r\nContent-Disposition: form-data; name*0=f; name*1=i; name*2=le; filename*99999999=a\r\n\r\na\r\n"
    + _END,
    "an empty file": _part("file", b"", file="a.png") + _END,
    "bare line feeds": _part("text").replace(b"\r\n", b"\n") + b"--x--\n",
    "bare carriage returns": _part("text").replace(b"\r\n", b"\r") + b"--x--\r",
    "something before": b"preamble\r\n" * 1000 + _part("text") + _END,
    "something after": _part("text") + _END + b"epilogue" * 1000,
    "an end twice": _part("text") + _END + _part("text") + _END,
    "a boundary in the content": _part("text", b"--x") + _END,
    "nearly a boundary, often": _part("text", b"\r\n--" * 10_000) + _END,
    "a field of JSON without end": _part("filter", b"[" * 60_000) + _END,
    "a field too long": _part("text", b"x" * 200_000) + _END,
}


@pytest.mark.parametrize("path", FORMS)
async def test_forms_of_any_kind_are_answered(stocked: World, path: str) -> None:
    statuses = {
        name: await _sent(stocked, path, body, **{"Content-Type": "multipart/form-data; boundary=x"})
        for name, body in FORM_BODIES.items()
    }
    print(path, Counter(statuses.values()))
    assert {statuses[name] for name in ("nothing", "no end", "many parts", "a part twice", "parts in parts", "no UTF-8")} <= {
        400,
        422,
    }
    await _works(stocked)


async def test_a_form_has_as_many_parts_as_are_allowed_and_no_more(stocked: World) -> None:
    details = []
    for count in (32, 33):
        body = b"".join(_part(f"k{n}") for n in range(count)) + _END
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        async with stocked.client.post("/api/v1/search-image", data=body, headers=headers) as answer:
            details.append((await answer.json())["detail"])
    assert "at most 32 parts" not in details[0]
    assert "at most 32 parts" in details[1]


BOUNDARIES = ("", '""', "x" * 71, "x" * 5_000, '"x y"', "(x)", "x; boundary=y", "\u00e9", '"', "--", "x\\", "%78")


@pytest.mark.parametrize("path", FORMS)
async def test_any_boundary_is_answered(stocked: World, path: str) -> None:
    for boundary in BOUNDARIES:
        await _sent(stocked, path, _part("text") + _END, **{"Content-Type": f"multipart/form-data; boundary={boundary}"})
    await _sent(stocked, path, _part("text") + _END, **{"Content-Type": "multipart/form-data"})
    await _works(stocked)


def _damaged(rng: random.Random, body: bytes) -> bytes:
    pieces = (
        b"\r\n",
        b"--x",
        b"--x--",
        b"\r\n\r\n",
        b"\0",
        b'"',
        b";",
        b":",
        b"=",
        b"Content-Disposition: form-data; ",
        b"\xff",
        b"{",
        b"[",
    )
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(body) + 1)
        kind, length = rng.randrange(4), rng.randint(1, 30)
        middle = (rng.choice(pieces), b"", body[at : at + length] * rng.randint(2, 50), rng.randbytes(length))[kind]
        body = body[:at] + middle + body[at + (0 if kind == 0 else length) :]
    return body


@pytest.mark.parametrize("count", [400, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_damaged_forms_are_answered(stocked: World, count: int) -> None:
    rng = random.Random(_seed())
    whole = _part("text") + _part("top_k", b"3") + _part("filter", b'{"folder": "a"}') + _part("file", _PNG, file="a.png") + _END
    statuses: Counter[int] = Counter()
    for _ in range(count):
        path = rng.choice(FORMS)
        statuses[await _sent(stocked, path, _damaged(rng, whole), **{"Content-Type": "multipart/form-data; boundary=x"})] += 1
    print(statuses)
    assert statuses[400] > count // 20
    await _works(stocked)


def _value(rng: random.Random, depth: int = 0) -> Any:
    leaves: tuple[Callable[[], Any], ...] = (
        lambda: None,
        lambda: rng.choice((True, False)),
        lambda: rng.choice((0, -1, 1, 2**31, 2**63, -(2**64), 10**40)),
        lambda: rng.choice((0.5, -1e308, 1e-320, 1e400, float("nan"))),
        lambda: rng.choice(("", "red", "\0", "\ud800", "x" * 3000, IMAGE, "../..", "2024-01-01", "1e9", "ä" * 500)),
    )
    if depth > 3 or rng.random() < 0.6:
        return rng.choice(leaves)()
    if rng.random() < 0.5:
        return [_value(rng, depth + 1) for _ in range(rng.randint(0, 4))]
    return {rng.choice(_KNOWN): _value(rng, depth + 1) for _ in range(rng.randint(0, 4))}


def _names(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return {name for one in schema for name in _names(one)}
    if not isinstance(schema, dict):
        return set()
    return set(schema.get("properties", {})) | {name for one in schema.values() for name in _names(one)}


_KNOWN = sorted(_names(DOCUMENT) | {"", "x", "__proto__"})
"""Every field that the documented API has anywhere: what does not belong here is refused, and what does is of any kind."""


@pytest.mark.parametrize("count", [600, pytest.param(50_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_known_fields_with_any_values_are_answered(stocked: World, count: int) -> None:
    rng = random.Random(_seed())
    statuses: Counter[int] = Counter()
    for _ in range(count):
        path = rng.choice(PUBLIC)
        schema = DOCUMENT["paths"][path]["post"]["requestBody"]
        fields = sorted(_names(_resolved(schema)))
        asked = {name: _value(rng) for name in rng.sample(fields, rng.randint(0, min(4, len(fields))))}
        if rng.random() < 0.5 and "text" in fields:
            asked["text"] = "red"
        statuses[await _sent(stocked, path, json.dumps(asked).encode(), **{"Content-Type": "application/json"})] += 1
    print(statuses)
    assert statuses[422] > count // 10
    await _works(stocked)


def _resolved(schema: Any) -> Any:
    """With what it refers to."""
    if isinstance(schema, list):
        return [_resolved(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        found: Any = DOCUMENT
        for key in schema["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        return {"properties": found.get("properties", {})}
    return {key: _resolved(one) for key, one in schema.items()}


async def test_odd_part_headers_fill_no_memory_with_warnings(stocked: World) -> None:
    before = len(getattr(multipart, "__warningregistry__", {}))
    for n in range(50):
        body = f"--x\r\nContent-Disposition: (odd {n}\r\n\r\na\r\n--x--\r\n".encode()
        await _sent(stocked, "/api/v1/search-image", body, **{"Content-Type": "multipart/form-data; boundary=x"})
    assert len(getattr(multipart, "__warningregistry__", {})) == before


# --- tokens -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [400, pytest.param(50_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_a_damaged_token_is_refused_and_never_a_server_error(stocked: World, count: int) -> None:
    rng = random.Random(_seed())
    token = (await stocked.search(text="red"))["jwt"]
    odd = [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "=.=.=",
        token + ".",
        "." + token,
        token * 50,
        "\0",
        "\ud800",
        "Bearer " + token,
        " " + token,
        "ä.ö.ü",
    ]
    for n in range(count):
        damaged = odd[n] if n < len(odd) else _damaged(rng, token.encode()).decode("latin-1")
        if damaged == token:
            continue
        body = json.dumps({"user_feedback": 5, "jwt": damaged}).encode()
        status = await _sent(stocked, "/api/v1/create-feedback", body, **{"Content-Type": "application/json"})
        assert status in {400, 401, 422, 429}, damaged
    await _works(stocked)


# --- lengths ------------------------------------------------------------------------------------------------------------------------


async def _raw(world: World, request: bytes) -> bytes:
    """What comes back on a socket of its own until it is closed, or falls silent."""
    host, port = world.client.host, world.client.port
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        await writer.drain()
        async with asyncio.timeout(2):
            return await reader.read(65_536)
    except (TimeoutError, ConnectionError):
        return b""
    finally:
        writer.close()


_LINE = b"POST /api/v1/search-image HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        _LINE + b"Content-Length: 10\r\nContent-Length: 15\r\n\r\n" + b'{"text":"red"}',
        _LINE + b"Content-Length: -1\r\n\r\n",
        _LINE + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        _LINE + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        _LINE + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        _LINE + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        _LINE + b"Transfer-Encoding: chunked\r\n\r\n2;" + b"x" * 20_000 + b"\r\n{}\r\n0\r\n\r\n",
        _LINE + b"Transfer-Encoding: gzip, chunked, identity\r\n\r\n0\r\n\r\n",
        _LINE + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"\0" * 1000 + b"\r\n\r\n",
        b"POST http://elsewhere:80/api/v1/search-image HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        struct.pack("<200H", *range(200)) + b"\r\n\r\n",
    ],
    ids=range(15),
)
async def test_a_request_that_lies_about_its_length_is_refused(stocked: World, request_bytes: bytes) -> None:
    answer = await _raw(stocked, request_bytes)
    assert not answer or 400 <= int(answer.split(b" ", 2)[1]) < 500, answer[:200]
    await _works(stocked)
