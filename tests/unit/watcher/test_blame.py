"""Who is to blame when the models fail on a picture: that picture, or the models."""

from __future__ import annotations

import asyncio

from core.errors import InvalidRequest, ModelCrashed, ModelUnreachable
from core.schemas import ImageAnalysis, ModelsInfo
from tests.unit.watcher.fakes import FakeEmbedder, House, jpeg, until

PICTURES = 30


def _attempts(house: House) -> int:
    return int(house.ledger_rows("SELECT coalesce(max(attempts), 0) FROM images")[0][0])


def _fill(house: House, count: int) -> None:
    for number in range(count):
        house.write(f"{number}.jpg", jpeg(f"p{number}"))


async def _outlast(house: House, *, questions: int) -> None:
    """Until the models were asked so often."""
    asked = 0
    before = house.embedder.trouble

    def counted(image: bytes) -> BaseException | None:
        nonlocal asked
        asked += 1
        return before(image)

    house.embedder.trouble = counted
    await until(lambda: asked >= questions, timeout_s=30)


async def test_no_picture_fails_by_models_that_fail_on_every_one(house: House) -> None:
    """As with a graphics card that is lost: the service answers, and each picture is an error."""
    house.embedder.trouble = lambda _: ModelCrashed("the models failed on this input")
    _fill(house, PICTURES)
    async with house.running() as watcher:
        await _outlast(house, questions=2 * PICTURES)
        status = await watcher.catalog.status()
        assert status.images.failed == 0
        assert "every picture" in (status.watcher.waiting_for or "")
        assert _attempts(house) <= 1
        house.embedder.trouble = lambda _: None
        await house.agreed()
        assert (await watcher.catalog.status()).watcher.waiting_for is None


class _Confused(FakeEmbedder):
    is_confused = True

    def _analysis(self, image: bytes, info: ModelsInfo) -> ImageAnalysis:
        return super()._analysis(jpeg("another") if self.is_confused else image, info)


async def test_no_picture_fails_by_a_service_that_answers_for_another_one(house: House) -> None:
    confused = house.embedder = _Confused()
    house.options["max_attempts"] = 2
    _fill(house, 5)
    async with house.running() as watcher:
        await _outlast(house, questions=20)
        assert (await watcher.catalog.status()).images.failed == 0
        confused.is_confused = False
        await house.agreed()


async def test_no_picture_fails_by_a_service_that_understands_no_question(house: House) -> None:
    """As one of an earlier release may."""
    house.embedder.trouble = lambda _: InvalidRequest("there is no such parameter", field="region")
    house.options["max_attempts"] = 2
    _fill(house, 5)
    async with house.running() as watcher:
        await _outlast(house, questions=20)
        assert (await watcher.catalog.status()).images.failed == 0
        house.embedder.trouble = lambda _: None
        await house.agreed()


async def test_the_picture_that_models_fail_on_fails_and_its_neighbours_do_not(house: House) -> None:
    poison = jpeg("poison")
    house.embedder.trouble = lambda image: ModelCrashed("the models failed on this input") if image == poison else None
    house.write("poison.jpg", poison)
    _fill(house, PICTURES)
    async with house.running() as watcher:
        await until(lambda: bool(house.ledger_rows("SELECT * FROM images WHERE state = 'failed'")))
        await until(lambda: len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == PICTURES)
        ((reason, attempts),) = house.ledger_rows("SELECT reason, attempts FROM images WHERE state = 'failed'")
        assert reason == "crashes_model"
        assert (await watcher.catalog.status()).watcher.waiting_for is None
    assert attempts == house.settings().max_attempts - 1


async def test_a_suspect_waits_for_models_that_fail_on_all_others_and_is_then_judged_alone(house: House) -> None:
    poison = jpeg("poison")
    lost = False
    house.options["retry_min_s"] = 0.3

    def trouble(image: bytes) -> BaseException | None:
        return ModelCrashed("the models failed on this input") if lost or image == poison else None

    house.embedder.trouble = trouble
    house.write("poison.jpg", poison)
    async with house.running() as watcher:
        await until(lambda: _attempts(house) == 1)
        lost = True
        await _outlast(house, questions=8)
        assert _attempts(house) == 1
        lost = False
        await until(lambda: bool(house.ledger_rows("SELECT * FROM images WHERE state = 'failed'")))
        assert (await watcher.catalog.status()).images.failed == 1


async def test_a_picture_that_a_service_goes_away_with_lets_others_pass(house: House) -> None:
    """Behind a proxy its death is told as its absence: nothing counts against the picture, and nobody waits behind it."""
    killer = jpeg("killer")
    away_until, deaths = 0.0, 0
    house.options |= {"ingest_concurrency": 1, "retry_max_s": 5.0}
    gone = ModelUnreachable("the model service answers 502")

    def trouble(image: bytes) -> BaseException | None:
        nonlocal away_until, deaths
        now = asyncio.get_running_loop().time()
        if image == killer and now >= away_until:
            deaths += 1
            away_until = now + 0.15
        return gone if now < away_until else None

    house.embedder.trouble = trouble
    async with house.running():
        await until(lambda: bool(house.store.points))
        house.write("killer.jpg", killer)
        await until(lambda: deaths == 1)
        for number in range(PICTURES):
            house.write(f"{number}.jpg", jpeg(f"p{number}"))
        await until(lambda: len(house.ledger_rows("SELECT * FROM images WHERE state = 'indexed'")) == PICTURES, timeout_s=20)
        assert house.ledger_rows("SELECT state, attempts FROM images WHERE state <> 'indexed'") in (
            [("pending", 0)],
            [("running", 0)],
        )
        house.embedder.trouble = lambda _: None
        await house.agreed(10)
