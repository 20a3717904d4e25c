"""The model service over HTTP and its client: one round trip, and every error arrives as what it was."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from PIL import Image

from core import masks
from core.errors import ImageRejected, InvalidRequest, ModelCrashed, ModelUnavailable, NoModel, Overloaded, Reason
from core.model_client import ModelClient
from core.schemas import EngineState, ModelsInfo, Priority, SegmentMode
from model_service.app import create_app
from model_service.parts import Parts
from model_service.settings import ModelSettings
from tests.unit.model_service.fakes import POISON, FakeTexts, fake_parts


def _picture(size: tuple[int, int] = (40, 20), colour: str = "red") -> bytes:
    encoded = io.BytesIO()
    Image.new("RGB", size, colour).save(encoded, "PNG")
    return encoded.getvalue()


@asynccontextmanager
async def _service(
    load: Callable[[ModelSettings], Parts], *, ready: bool = True, **changes: object
) -> AsyncIterator[tuple[ModelClient, TestServer]]:
    settings = ModelSettings.model_validate({"queue_limit": 8, "models_dir": "/proc/no models", **changes})
    async with TestServer(create_app(settings, load=load)) as server, ModelClient(str(server.make_url("/"))) as client:
        if ready:
            await _until_ready(client)
        yield client, server


async def _until_ready(client: ModelClient) -> ModelsInfo:
    async with asyncio.timeout(10):
        while (info := await client.info()).state is not EngineState.READY:
            await asyncio.sleep(0.02)
    return info


async def test_one_round_trip_brings_every_embedding_and_segment_of_a_picture() -> None:
    picture = _picture((400, 200))
    async with _service(lambda _: fake_parts()) as (client, _):
        analysis = await client.analyse(picture)
    assert analysis.content_hash == hashlib.sha256(picture).hexdigest()
    assert (analysis.width, analysis.height, analysis.format, analysis.fingerprint) == (400, 200, "PNG", "f1")
    assert [embedding.collection for embedding in analysis.embeddings] == ["clip-1", "resnet-1"]
    (segment,) = analysis.segments
    assert segment.bbox == (0.0, 0.0, 200.0, 200.0)
    assert masks.decode(segment.mask).mean() == pytest.approx(0.5)
    assert [embedding.collection for embedding in segment.embeddings] == ["clip-1", "resnet-1"]
    for embedding in (*analysis.embeddings, *segment.embeddings):
        assert np.linalg.norm(embedding.vector) == pytest.approx(1.0, abs=1e-5)
    assert not np.allclose(analysis.embeddings[0].vector, segment.embeddings[0].vector)


async def test_boxes_of_a_reduced_picture_are_in_the_full_pictures_pixels() -> None:
    async with _service(lambda _: fake_parts()) as (client, _):
        analysis = await client.analyse(_picture((4000, 1000)))
    assert (analysis.width, analysis.height) == (4000, 1000)
    assert analysis.segments[0].bbox == pytest.approx((0, 0, 2000, 1000), abs=3)


async def test_a_query_can_ask_for_embeddings_alone() -> None:
    async with _service(lambda _: fake_parts()) as (client, _):
        analysis = await client.analyse(_picture(), segments=SegmentMode.NONE, priority=Priority.QUERY)
    assert analysis.segments == ()


async def test_a_part_of_a_picture_is_embedded_as_that_part_alone_would_be() -> None:
    """In pixels of the upright picture; what reaches beyond its edge is cut off."""
    halves = Image.new("RGB", (400, 200), "red")
    halves.paste("blue", (200, 0, 400, 200))
    encoded = io.BytesIO()
    halves.save(encoded, "PNG")
    async with _service(lambda _: fake_parts()) as (client, _):
        blue = await client.analyse(_picture((200, 200), "blue"), segments=SegmentMode.NONE)
        part = await client.analyse(encoded.getvalue(), region=(200, -10.5, 900, 300))
        assert part.segments == ()
        assert (part.width, part.height) == (400, 200)
        for ours, theirs in zip(part.embeddings, blue.embeddings, strict=True):
            assert np.allclose(ours.vector, theirs.vector)
        everything = await client.analyse(encoded.getvalue(), region=(-1e307, -1e307, 1e308, 1e308))
        assert np.allclose(everything.embeddings[0].vector, (await client.analyse(encoded.getvalue())).embeddings[0].vector)
        for outside in ((400.0, 0.0, 10.0, 10.0), (1e308, 0.0, 1e308, 5.0), (-1e308, 0.0, 1e307, 5.0)):
            with pytest.raises(InvalidRequest, match="400 x 200") as caught:
                await client.analyse(encoded.getvalue(), region=outside)
            assert caught.value.field == "region"


@pytest.mark.parametrize("region", ["", "1,2,3", "1,2,3,x", "0,0,0,5", "0,0,nan,5", "0,0,inf,5"])
async def test_a_region_that_is_none_is_refused(region: str) -> None:
    async with _service(lambda _: fake_parts()) as (_, server), ClientSession() as session:
        address = server.make_url("/v1/analyse").with_query(region=region)
        async with session.post(address, data=_picture()) as answer:
            assert answer.status == 422


async def test_concurrent_callers_share_batches_and_get_their_own_pictures_back() -> None:
    parts = fake_parts(duration_s=0.05, segmenter=False)
    pictures = [_picture(colour=f"rgb({25 * n}, 0, 200)") for n in range(8)]
    async with _service(lambda _: parts, queue_limit=32) as (client, _):
        analyses = await asyncio.gather(*(client.analyse(picture) for picture in pictures))
        alone = [(await client.analyse(picture)).embeddings[0].vector for picture in pictures]
    for picture, analysis, vector in zip(pictures, analyses, alone, strict=True):
        assert analysis.content_hash == hashlib.sha256(picture).hexdigest()
        assert np.allclose(analysis.embeddings[0].vector, vector)
    assert max(parts.image_towers[0].batches) > 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("image", "reason"),
    [(b"", Reason.EMPTY_FILE), (b"no picture", Reason.NOT_AN_IMAGE), (b"%!PS-Adobe", Reason.UNSUPPORTED_FORMAT)],
)
async def test_what_is_no_picture_is_rejected_with_its_reason(image: bytes, reason: Reason) -> None:
    async with _service(lambda _: fake_parts()) as (client, _):
        with pytest.raises(ImageRejected) as refused:
            await client.analyse(image)
    assert refused.value.reason is reason


async def test_limits_on_bytes_and_pixels_hold() -> None:
    async with _service(lambda _: fake_parts(), max_image_bytes=2000, max_image_pixels=100) as (client, _):
        with pytest.raises(ImageRejected) as too_long:
            await client.analyse(b"\xff\xd8\xff" + b"x" * 3000)
        with pytest.raises(ImageRejected) as too_wide:
            await client.analyse(_picture((50, 50)))
    assert (too_long.value.reason, too_wide.value.reason) == (Reason.TOO_MANY_BYTES, Reason.TOO_MANY_PIXELS)


async def test_it_answers_while_it_loads_and_when_there_is_nothing_to_load() -> None:
    def slow(_: ModelSettings) -> Parts:
        time.sleep(0.3)
        raise NoModel("put weights into MODELS_DIR")

    async with _service(slow, ready=False) as (client, _):
        assert (await client.info()).state is EngineState.LOADING
        with pytest.raises(ModelUnavailable, match="loaded"):
            await client.embed_texts(["a"])
        await asyncio.sleep(0.5)
        info = await client.info()
        assert (info.state, info.notice) == (EngineState.NO_MODEL, "put weights into MODELS_DIR")
        with pytest.raises(NoModel, match="MODELS_DIR"):
            await client.analyse(_picture())


async def test_a_full_queue_refuses_ingestion_before_queries_and_says_when_to_come_back() -> None:
    parts = fake_parts()
    texts = parts.text_tower
    assert isinstance(texts, FakeTexts)
    async with _service(lambda _: parts, queue_limit=4) as (client, _):
        texts.gate.clear()
        waiting = [asyncio.create_task(client.embed_texts(["w"], priority=Priority.INGEST)) for _ in range(3)]
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded) as refused:
            await client.analyse(_picture())
        assert refused.value.retry_after_s >= 1
        query = asyncio.create_task(client.embed_texts(["q"]))
        await asyncio.sleep(0.1)
        with pytest.raises(Overloaded):
            await client.embed_texts(["one too many"])
        texts.gate.set()
        await asyncio.gather(query, *waiting)
        await client.analyse(_picture())


async def test_a_poisoned_input_fails_alone() -> None:
    parts = fake_parts()
    texts = parts.text_tower
    assert isinstance(texts, FakeTexts)
    async with _service(lambda _: parts) as (client, _):
        texts.gate.clear()
        first = asyncio.create_task(client.embed_texts(["first"]))
        await asyncio.sleep(0.05)
        asked = [asyncio.create_task(client.embed_texts([text])) for text in ("ab", POISON, "abc")]
        await asyncio.sleep(0.05)
        texts.gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        await first
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert [answer.vectors[0][0] for answer in good] == [2.0, 3.0]
    assert isinstance(answers[1], ModelUnavailable)


async def test_a_service_that_is_not_there_and_one_that_breaks_off_are_told_apart() -> None:
    async def breaks_off(request: web.Request) -> web.Response:
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    app = web.Application()
    app.router.add_post("/v1/analyse", breaks_off)
    async with TestServer(app) as server:
        url = str(server.make_url("/"))
        async with ModelClient(url) as client:
            with pytest.raises(ModelCrashed):
                await client.analyse(_picture())
    async with ModelClient(url) as client:
        with pytest.raises(ModelUnavailable, match="reached"):
            await client.analyse(_picture())


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"state": "ready"}', b'{"state": "x", "profile": 1}'])
async def test_garbage_from_the_service_is_an_outage_not_a_crash_of_ours(content: bytes) -> None:
    async def garbage(_: web.Request) -> web.Response:
        return web.Response(body=content, content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", garbage)
    async with TestServer(app) as server, ModelClient(str(server.make_url("/"))) as client:
        with pytest.raises(ModelUnavailable):
            await client.info()
