"""One set of models on its way into memory."""

from __future__ import annotations

import asyncio

import pytest

from model_service.parts import Parts
from model_service.residence import Residence
from tests.unit.model_service.fakes import fake_parts


class Panic(BaseException):
    """As of a library in Rust."""


@pytest.mark.parametrize("ended_by", [Panic("out of bounds"), SystemExit(1), ValueError("a broken file")])
async def test_a_load_that_ends_in_any_way_is_tried_again(ended_by: BaseException) -> None:
    tries = 0

    def load() -> Parts:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise ended_by
        return fake_parts()

    ready = asyncio.Event()
    async with Residence(load, profile="some", embed_batch=4, when_ready=ready.set, look_again_s=0.01) as residence:
        async with asyncio.timeout(10):
            await ready.wait()
        assert residence.ready().parts.profile == "fake"
    assert tries == 2
