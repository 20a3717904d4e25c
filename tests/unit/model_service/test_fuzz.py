"""Whatever is sent to the model service is answered, and it works on."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer

from core.model_client import ModelClient
from model_service.app import create_app
from model_service.settings import ModelSettings
from tests import hostile
from tests.faulty_decoding import png
from tests.unit.model_service.fakes import fake_parts
from tests.unit.model_service.test_app import _until_ready

_JSON = {"Content-Type": "application/json"}
_REGIONS = (
    "",
    "1",
    "1,2,3",
    "1,2,3,4,5",
    "nan,0,1,1",
    "inf,0,1,1",
    "0,0,-1,1",
    "0,0,0,0",
    "1e400,0,1,1",
    "-5,-5,1e308,1e308",
    "a,b,c,d",
    "0,0,1e-320,1",
)
_OPTIONS = ("", "standard", "none", "quick", "full", "query", "ingest", "STANDARD", "\0", "x" * 3000)
_TEXTS: tuple[bytes, ...] = (
    b"", b"null", b"[]", b'{"texts": []}', b'{"texts": [""]}', b'{"texts": ["\\ud800"]}', b'{"texts": ["a\\u0000"]}', b"[" * 100_000,
    b'{"texts": "red"}', b'{"texts": [1]}', b'{"texts": ["red"], "priority": "first"}', b'{"texts": ["\xff"]}',
    b'{"texts": [' + b'"red",' * 1000 + b'"red"]}',
)  # fmt: skip


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
async def test_any_picture_with_any_options_is_analysed_or_refused(count: int) -> None:
    seed = int(os.environ.get("FUZZ_SEED", str(random.randrange(2**32))))
    print(f"FUZZ_SEED={seed}")
    rng = random.Random(seed)
    small = {**hostile.TOO_LARGE, **hostile.ZERO_SIZED, **hostile.EXIF_LIES, **hostile.POLYGLOTS}
    bodies = [
        b"",
        b"x",
        png(),
        *hostile.SVGS.values(),
        *(body for body in (make() for make in small.values()) if len(body) < 70_000),
    ]
    statuses: Counter[int] = Counter()
    async with (
        TestServer(create_app(ModelSettings(), load=lambda _: fake_parts())) as server,
        ClientSession() as session,
        ModelClient(str(server.make_url("/"))) as client,
    ):
        await _until_ready(client)
        for _ in range(count):
            query = {name: rng.choice(_OPTIONS) for name in ("segments", "priority") if rng.random() < 0.3}
            if rng.random() < 0.3:
                query["region"] = rng.choice(_REGIONS)
            async with session.post(server.make_url("/v1/analyse"), params=query, data=rng.choice(bodies)) as answer:
                assert answer.status < 500, (query, await answer.text())
                assert answer.content_type == ("application/json" if answer.status == 200 else "application/problem+json")
                statuses[answer.status] += 1
        for text in _TEXTS:
            async with session.post(server.make_url("/v1/embed-texts"), data=text, headers=_JSON) as answer:
                assert answer.status < 500, text
        analysis = await client.analyse(png())
        assert analysis.width == 40
    print(statuses)
    assert {200, 415, 422} <= statuses.keys()
