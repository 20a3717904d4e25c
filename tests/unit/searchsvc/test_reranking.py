"""A rating changes what the same and near-same questions find: whose, how soon, and for how long."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from core.errors import VectorsUnavailable
from searchsvc.access import WriteAccess
from searchsvc.clients import Clients, is_known
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback
from searchsvc.reranking import Reranking
from tests.fakes import FakeVectorStore, picture
from tests.unit.searchsvc.conftest import MakeWorld, World

KEY = {"Authorization": "Bearer first"}


async def _rate(world: World, token: str, rating: int, headers: dict[str, str] | None = None) -> None:
    answer = await world.client.post(
        "/api/v1/create-feedback", json={"user_feedback": rating, "jwt": token}, headers=headers or {}
    )
    assert answer.status == 201, await answer.text()


def _ids(found: dict[str, Any]) -> list[str]:
    return [match["image_id"] for match in found["matches"]]


def _score(found: dict[str, Any], image_id: str) -> float:
    return next(float(match["score"]) for match in found["matches"] if match["image_id"] == image_id)


async def _with_pictures(world: World) -> World:
    for n, colour in enumerate(("red", "red", "blue", "green")):
        await world.add(picture(colour, mark=n), f"{n}.png")
    return world


@pytest.fixture
async def pictures(world: World) -> World:
    return await _with_pictures(world)


async def test_a_liked_picture_rises_and_the_answer_says_why(pictures: World) -> None:
    before = await pictures.search(text="red")
    assert before["feedback"] is None
    liked = before["matches"][2]
    await _rate(pictures, liked["jwt"], 10)
    after = await pictures.search(text="red")
    assert after["feedback"]["ratings"] == after["feedback"]["clients"] == 1
    assert 0 < after["feedback"]["rotation_degrees"] <= 10
    assert _score(after, liked["image_id"]) > liked["score"]


async def test_a_disliked_picture_sinks(pictures: World) -> None:
    before = await pictures.search(text="red")
    disliked = before["matches"][0]
    await _rate(pictures, disliked["jwt"], 1)
    after = await pictures.search(text="red")
    assert _ids(before).index(disliked["image_id"]) < _ids(after).index(disliked["image_id"])


async def test_another_question_is_answered_as_if_nothing_had_been_rated(pictures: World) -> None:
    before = await pictures.search(text="blue")
    await _rate(pictures, (await pictures.search(text="red"))["matches"][3]["jwt"], 10)
    after = await pictures.search(text="blue")
    assert after["feedback"] is None
    assert [(m["image_id"], m["score"]) for m in after["matches"]] == [(m["image_id"], m["score"]) for m in before["matches"]]


async def test_a_search_may_ask_for_results_without_feedback(pictures: World) -> None:
    before = await pictures.search(text="red")
    await _rate(pictures, before["matches"][3]["jwt"], 10)
    after = await pictures.search(text="red", feedback=False)
    assert after["feedback"] is None
    assert [match["score"] for match in after["matches"]] == [match["score"] for match in before["matches"]]
    form = await pictures.client.post("/api/v1/search-image", data={"text": "red", "feedback": "false"})
    assert form.status == 415  # urlencoded is no form of ours; below as multipart
    assert (await _multipart(pictures, text="red", feedback="false"))["feedback"] is None
    assert (await _multipart(pictures, text="red", feedback="true"))["feedback"] is not None


async def _multipart(world: World, **fields: str) -> dict[str, Any]:
    from aiohttp import FormData

    form = FormData(default_to_multipart=True)
    for name, value in fields.items():
        form.add_field(name, value)
    found: dict[str, Any] = await (await world.client.post("/api/v1/search-image", data=form)).json()
    return found


async def test_the_rating_of_a_whole_search_turns_nothing(pictures: World) -> None:
    await _rate(pictures, (await pictures.search(text="red"))["jwt"], 1)
    assert (await pictures.search(text="red"))["feedback"] is None


async def test_the_rating_of_a_region_turns_towards_the_region(pictures: World) -> None:
    region = (await pictures.search(text="red", scope="segments"))["matches"][3]
    await _rate(pictures, region["jwt"], 10)
    after = await pictures.search(text="red", scope="segments")
    assert _score(after, region["image_id"]) > region["score"]


async def test_pictures_asked_by_a_picture_learn_too(pictures: World) -> None:
    asked = _ids(await pictures.search(text="blue"))[0]
    before = await pictures.search(image_id=asked)
    await _rate(pictures, before["matches"][2]["jwt"], 10)
    assert (await pictures.search(image_id=asked))["feedback"]["ratings"] == 1


async def test_rated_searches_carry_how_far_they_were_turned(pictures: World) -> None:
    await _rate(pictures, (await pictures.search(text="red"))["matches"][3]["jwt"], 10)
    turned = await pictures.search(text="red")
    await _rate(pictures, turned["matches"][0]["jwt"], 10)
    text = await (await pictures.client.get("/api/v1/feedback")).text()
    assert [json.loads(line)["rotation_degrees"] for line in text.splitlines()] == [0, turned["feedback"]["rotation_degrees"]]


async def test_switched_off_ratings_are_kept_and_turn_nothing(make_world: MakeWorld) -> None:
    world = await _with_pictures(await make_world(feedback_reranking="OFF"))
    await _rate(world, (await world.search(text="red"))["matches"][3]["jwt"], 10)
    assert (await world.search(text="red"))["feedback"] is None
    assert len((await (await world.client.get("/api/v1/feedback")).text()).splitlines()) == 1


async def test_beyond_this_machine_only_ratings_with_a_key_count(make_world: MakeWorld) -> None:
    world = await _with_pictures(await make_world(api_keys="first, second"))
    found = await world.search(text="red")
    await _rate(world, found["matches"][3]["jwt"], 10)
    await _rate(world, found["matches"][2]["jwt"], 10, {"Authorization": "Bearer wrong"})
    assert (await world.search(text="red"))["feedback"] is None
    await _rate(world, (await world.search(text="red"))["matches"][3]["jwt"], 10, KEY)
    await _rate(world, (await world.search(text="red"))["matches"][3]["jwt"], 10, {"Authorization": "Bearer second"})
    assert (await world.search(text="red"))["feedback"]["clients"] == 2


async def test_everybody_s_ratings_count_where_the_operator_says_so(make_world: MakeWorld) -> None:
    world = await _with_pictures(await make_world(feedback_reranking="on", api_keys="first"))
    await _rate(world, (await world.search(text="red"))["matches"][3]["jwt"], 10)
    assert (await world.search(text="red"))["feedback"]["clients"] == 1


async def test_one_client_that_rates_without_end_stays_within_its_bound(pictures: World) -> None:
    for _ in range(12):
        found = await pictures.search(text="red")
        for match in found["matches"]:
            await _rate(pictures, match["jwt"], 1 if match["image_name"] in {"0.png", "1.png"} else 10)
    assert (await pictures.search(text="red"))["feedback"]["rotation_degrees"] <= 10 + 1e-3


# --- over restarts and failures --------------------------------------------------------------------------------------


def _rating(jti: str, image_id: str, query: Any, **more: Any) -> Rating:
    made: dict[str, Any] = {"client": "local-1", "shown": [image_id], "query": {"text": "red"}, **more}
    return Rating(
        jti=jti, rating=10, image_id=image_id, segment=None, search_id="s", model="clip-fake-1", query_vector=query, **made
    )


@pytest.fixture
async def corpus(world: World) -> tuple[FakeVectorStore, str]:
    return world.vectors, await world.add(picture("blue"), "blue.png")


QUERY = np.eye(32, dtype=np.float32)[0]


async def _turned(reranking: Reranking) -> int:
    """Waits for the loading to end, which is quick or never."""
    for _ in range(100):
        if (turned := await reranking.turn("clip-fake-1", QUERY)) is not None:
            return turned.judgements
        await asyncio.sleep(0.01)
    return 0


async def test_what_was_rated_counts_after_a_restart(tmp_path: Path, corpus: tuple[FakeVectorStore, str]) -> None:
    vectors, image_id = corpus
    async with FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite")) as store:
        await store.add(_rating("a", image_id, QUERY))
        await store.add(_rating("b", image_id, None))
        await store.add(_rating("c", "f" * 64, QUERY))
        async with Reranking("known", store=store, vectors=vectors) as reranking:
            assert await _turned(reranking) == 1


async def test_while_the_vectors_are_away_nothing_turns_and_ratings_wait(
    tmp_path: Path, corpus: tuple[FakeVectorStore, str]
) -> None:
    vectors, image_id = corpus
    async with FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite")) as store:
        await store.add(_rating("a", image_id, QUERY))
        vectors.away = VectorsUnavailable("away")
        async with Reranking("known", store=store, vectors=vectors, first_pause_s=0.05) as reranking:
            await reranking.learn(_rating("b", image_id, QUERY, client="key-2"))
            assert await reranking.turn("clip-fake-1", QUERY) is None
            vectors.away = None
            await _turned(reranking)
            await asyncio.sleep(0.1)
            assert await _turned(reranking) == 2


async def test_a_rating_that_cannot_be_learned_now_is_still_accepted(pictures: World) -> None:
    token = (await pictures.search(text="red"))["matches"][0]["jwt"]
    pictures.vectors.away = VectorsUnavailable("away")
    await _rate(pictures, token, 10)
    pictures.vectors.away = None
    assert (await pictures.search(text="red"))["feedback"] is None


async def test_a_fault_in_learning_neither_unsays_a_rating_that_is_stored_nor_ends_all_learning(
    pictures: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, retrieve = await pictures.search(text="red"), pictures.vectors.retrieve

    async def faulty(*_: object, **__: object) -> NoReturn:
        raise ZeroDivisionError

    monkeypatch.setattr(pictures.vectors, "retrieve", faulty)
    await _rate(pictures, found["matches"][0]["jwt"], 10)
    monkeypatch.setattr(pictures.vectors, "retrieve", retrieve)
    await _rate(pictures, found["matches"][1]["jwt"], 10)
    assert (await pictures.search(text="red"))["feedback"]["ratings"] == 1


async def test_a_fault_in_what_was_rated_before_is_tried_again(
    tmp_path: Path, corpus: tuple[FakeVectorStore, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, image_id = corpus
    retrieve, faults = vectors.retrieve, asyncio.Semaphore(0)

    async def faulty(*_: object, **__: object) -> NoReturn:
        faults.release()
        raise ZeroDivisionError

    async with FeedbackStore(FileFeedback(tmp_path / "feedback.sqlite")) as store:
        await store.add(_rating("a", image_id, QUERY))
        monkeypatch.setattr(vectors, "retrieve", faulty)
        async with Reranking("known", store=store, vectors=vectors, first_pause_s=0.01) as reranking:
            for _ in range(2):
                await asyncio.wait_for(faults.acquire(), 5)
            monkeypatch.setattr(vectors, "retrieve", retrieve)
            assert await _turned(reranking) == 1


# --- clients ---------------------------------------------------------------------------------------------------------


def _name(
    address: str | None, *, keys: tuple[str, ...] = ("first",), authorization: str | None = None, secret: bytes = b"s"
) -> str:
    return Clients(secret, WriteAccess(keys, listens_on="127.0.0.1")).name(authorization=authorization, address=address)


def test_a_client_is_the_same_for_the_same_key_wherever_it_comes_from() -> None:
    assert _name("10.0.0.1", authorization="Bearer first") == _name("10.0.0.2", authorization="bearer  first")
    assert _name("10.0.0.1", authorization="Bearer wrong") == _name("10.0.0.1")
    assert is_known(_name("10.0.0.1", authorization="Bearer first"))
    assert not is_known(_name("10.0.0.1"))


def test_addresses_are_told_apart_and_those_of_one_household_are_not() -> None:
    assert _name("10.0.0.1") != _name("10.0.0.2")
    assert _name("::ffff:10.0.0.1") == _name("10.0.0.1")
    assert _name("2001:db8:1:2::1") == _name("2001:db8:1:2:ffff::9%eth0")
    assert _name("2001:db8:1:2::1") != _name("2001:db8:1:3::1")
    assert _name(None) == _name("")


def test_a_pseudonym_tells_neither_address_nor_key_and_depends_on_the_secret() -> None:
    for name in (_name("10.0.0.1"), _name("10.0.0.1", authorization="Bearer first")):
        assert "10.0" not in name
        assert "first" not in name
        assert len(name.partition("-")[2]) == 16
    assert _name("10.0.0.1") != _name("10.0.0.1", secret=b"other")


def test_without_keys_this_machine_is_one_known_client() -> None:
    assert is_known(_name("127.0.0.1", keys=()))
    assert not is_known(None)
