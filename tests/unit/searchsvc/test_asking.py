"""All the ways to say what is looked for, and what an answer says of them."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import numpy as np
import pytest
from aiohttp import FormData
from PIL import Image

from core.points import image_point_id, segment_point_id
from core.schemas import Vector
from searchsvc.question import combine
from searchsvc.search_schema import TermKind
from tests.fakes import IMAGE_SPACE, TEXT_SPACE, picture
from tests.unit.searchsvc.conftest import World


def halves(left: str, right: str, *, size: tuple[int, int] = (64, 48)) -> bytes:
    """A picture of two colours; the one segment that the fake finds is its left half."""
    whole = Image.open(io.BytesIO(picture(right, size=size)))
    whole.paste(Image.open(io.BytesIO(picture(left, size=(size[0] // 2, size[1])))), (0, 0))
    written = io.BytesIO()
    whole.save(written, "PNG")
    return written.getvalue()


@pytest.fixture
async def album(world: World) -> dict[str, str]:
    """Image ids by name."""
    plain = {colour: await world.add(picture(colour), f"{colour}.png") for colour in ("red", "green", "blue", "yellow")}
    return {**plain, "red in black": await world.add(halves("red", "black"), "red-in-black.png")}


def names(answer: dict[str, Any]) -> list[str]:
    return [match["image_name"] for match in answer["matches"]]


async def posted(world: World, *files: bytes, to: str = "search-image", **fields: Any) -> tuple[int, dict[str, Any]]:
    form = FormData(default_to_multipart=True)
    for file in files:
        form.add_field("file", file, filename="query.png", content_type="image/png")
    for name, value in fields.items():
        form.add_field(name, value if isinstance(value, str) else json.dumps(value))
    answer = await world.client.post(f"/api/v1/{to}", data=form)
    return answer.status, await answer.json(content_type=None)


async def test_an_indexed_region_is_asked_by_its_stored_vector(world: World, album: dict[str, str]) -> None:
    analysed = len(world.embedder.analysed)
    answer = await world.search(image_id=album["red in black"], segment=0)
    assert names(answer)[0] == "red.png"
    assert "red-in-black.png" not in names(answer)
    assert len(world.embedder.analysed) == analysed
    status, problem = await world.refused(image_id=album["red"], segment=9)
    assert (status, problem["detail"]) == (404, "this image has no such segment")


async def test_a_part_of_the_query_picture_is_asked_by(world: World, album: dict[str, str]) -> None:
    query = halves("green", "blue", size=(200, 100))
    _, left = await posted(world, query, region=[0, 0, 100, 100])
    _, right = await posted(world, query, region=[100.5, 0, 99, 100])
    assert (names(left)[0], names(right)[0]) == ("green.png", "blue.png")
    status, problem = await posted(world, query, region=[200, 0, 5, 5])
    assert (status, problem["errors"][0]["field"]) == (422, "region")


async def test_a_part_of_an_indexed_picture_is_asked_by_from_its_file(world: World, album: dict[str, str]) -> None:
    answer = await world.search(image_id=album["red in black"], region=[0, 0, 32, 48])
    assert names(answer)[0] == "red.png"
    assert "red-in-black.png" not in names(answer)
    (world.images / "red-in-black.png").unlink()
    status, _ = await world.refused(image_id=album["red in black"], region=[0, 0, 32, 48])
    assert status == 404


async def test_several_query_pictures_are_one_question(world: World, album: dict[str, str]) -> None:
    status, answer = await posted(world, picture("red", mark=9), picture("blue", mark=9))
    assert status == 200
    assert {"red.png", "blue.png"} <= set(names(answer)[:3])
    status, problem = await posted(world, *[picture("red", mark=n) for n in range(5)])
    assert (status, problem["errors"][0]["field"]) == (422, "file")


async def test_examples_draw_towards_them_and_counterexamples_away(world: World, album: dict[str, str]) -> None:
    scores = {}
    for said, question in {
        "plain": {},
        "like": {"like": [{"image_id": album["blue"]}]},
        "unlike": {"unlike": [{"image_id": album["red in black"], "segment": 0}]},
    }.items():
        answer = await world.search(text="red yellow", **question)
        scores[said] = {match["image_name"]: match["score"] for match in answer["matches"]}
    assert "blue.png" not in scores["like"], "an example is no answer"
    assert scores["unlike"]["red.png"] < scores["plain"]["red.png"] < scores["unlike"]["yellow.png"]
    assert scores["like"]["green.png"] != scores["plain"]["green.png"]
    alone = await world.search(like=[{"image_id": album["red"]}, {"image_id": album["red in black"], "segment": 0}])
    assert len(alone["matches"]) == 3
    status, problem = await world.refused(unlike=[{"image_id": album["red"]}])
    assert (status, problem["errors"][0]["field"]) == (422, "text")


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({"text": "red", "segment": 0}, "segment"),
        ({"text": "red", "region": [0, 0, 1, 1]}, "region"),
        ({"image_id": "0" * 64, "segment": 1, "region": [0, 0, 1, 1]}, "region"),
        ({"image_id": "0" * 64, "region": [0, 0, 0, 1]}, "region.2"),
        ({"image_id": "0" * 64, "region": [0, 0, 1]}, "region.3"),
        ({"text": "red", "like": [{"image_id": "0" * 64}] * 17}, "like"),
        ({"text": "red", "like": [{"image_id": "x"}]}, "like.0.image_id"),
        ({"text": "red", "unlike": [{"segment": 1}]}, "unlike.0.image_id"),
        ({"text": "red", "diversity": 1.01}, "diversity"),
        ({"text": "red", "collapse": 1}, "collapse"),
        ({"text": "red", "explain": "yes"}, "explain"),
        ({"cursor": ""}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "AAAA", "text": "red"}, "text"),
        ({"cursor": "AAAA", "offset": 0}, "offset"),
    ],
)
async def test_what_does_not_go_together_is_refused_by_the_fields_name(
    world: World, question: dict[str, Any], field: str
) -> None:
    status, problem = await world.refused(**question)
    assert (status, problem["errors"][0]["field"]) == (422, field)


# --- explanations


@pytest.mark.parametrize("scope", ["images", "segments", "both"])
async def test_the_terms_of_an_explanation_add_up_to_the_score(world: World, album: dict[str, str], scope: str) -> None:
    answer = await world.search(
        text="red",
        like=[{"image_id": album["blue"]}],
        unlike=[{"image_id": album["red in black"], "segment": 0}],
        negative_text="green",
        scope=scope,
        explain=True,
        top_k=3,
    )
    assert answer["matches"]
    for match in answer["matches"]:
        said = match["explanation"]
        assert said["collection"] == TEXT_SPACE.collection
        assert [term["of"] for term in said["terms"]] == ["text", "like", "negative_text", "unlike"]
        assert [term["ref"] for term in said["terms"]] == ["red", album["blue"], "green", f"{album['red in black']}/0"]
        total = sum(term["weight"] * term["similarity"] for term in said["terms"])
        n = match["segment"] and match["segment"]["n"]
        if n is None:
            assert said["point_id"] == image_point_id(match["image_id"])
            assert said["whole"] == pytest.approx(total, abs=1e-5)
        else:
            assert said["point_id"] == segment_point_id(match["image_id"], n)
            assert (said["region"], said["region_n"]) == (pytest.approx(total, abs=1e-5), n)
        if scope == "both":
            assert said["region"] is not None
            raised = said["whole"] + 0.6 * max(0, said["region"] - said["whole"])
            assert match["score"] == pytest.approx(raised, abs=1e-5)
        else:
            assert match["score"] == pytest.approx(total, abs=1e-5)
            assert (said["whole"] is None) == (scope == "segments")


async def test_what_feedback_adds_is_a_term_of_its_own(world: World, album: dict[str, str]) -> None:
    for mark in range(3):
        found = await world.search(text="red")
        liked = next(match for match in found["matches"] if match["image_name"] == "blue.png")
        rated = await world.client.post("/api/v1/create-feedback", json={"jwt": liked["jwt"], "user_feedback": 10 - mark})
        assert rated.status == 201
    answer = await world.search(text="red", explain=True)
    assert answer["feedback"] is not None
    for match in answer["matches"]:
        terms = match["explanation"]["terms"]
        assert [term["of"] for term in terms] == ["text", "feedback"]
        assert sum(term["weight"] * term["similarity"] for term in terms) == pytest.approx(match["score"], abs=1e-5)


async def test_nothing_is_explained_unasked(world: World, album: dict[str, str]) -> None:
    assert {match["explanation"] for match in (await world.search(text="red"))["matches"]} == {None}


def test_terms_have_the_weights_that_make_the_vector() -> None:
    random = np.random.default_rng(4)

    def part(of: TermKind) -> tuple[TermKind, str, Vector]:
        vector = random.normal(size=16).astype(np.float32)
        return of, of, vector / np.linalg.norm(vector)

    vector, terms = combine([part("text"), part("file"), part("like")], [part("unlike"), part("negative_text")])
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert np.allclose(sum(term.weight * term.vector for term in terms), vector, atol=1e-6)
    weights = {term.of: term.weight for term in terms}
    assert weights["text"] == pytest.approx(2 * weights["file"])
    assert weights["like"] == pytest.approx(weights["file"])
    assert weights["negative_text"] == pytest.approx(2 * weights["unlike"])
    assert weights["unlike"] < 0 < weights["file"]


def test_pictures_that_are_not_wanted_hardly_count_against_words_alone() -> None:
    """They are nearer to every picture than words are."""
    word, seen, disliked = (np.eye(3, dtype=np.float32)[n] for n in range(3))
    beside_words, _ = combine([("text", "w", word)], [("unlike", "u", disliked)])
    beside_pictures, _ = combine([("image_id", "p", seen)], [("unlike", "u", disliked)])
    assert beside_words[2] / beside_words[0] == pytest.approx(-0.05)
    assert beside_pictures[2] / beside_pictures[1] == pytest.approx(-0.25)


# --- near-duplicates and variety


async def test_near_duplicates_stand_as_one_match_that_names_them(world: World, album: dict[str, str]) -> None:
    copies = {await world.add(picture("green", image_format=name), f"green.{name}") for name in ("BMP", "TIFF")}
    same = copies | {album["green"]}
    plain = await world.search(text="green")
    assert {match["image_id"] for match in plain["matches"][:3]} == same
    assert all(match["near_duplicates"] == [] for match in plain["matches"])
    answer = await world.search(text="green", collapse=True)
    first = answer["matches"][0]
    assert {first["image_id"], *first["near_duplicates"]} == same
    told = [image_id for match in answer["matches"] for image_id in (match["image_id"], *match["near_duplicates"])]
    assert sorted(told) == sorted({*album.values(), *copies})
    pages, cursor = [first["image_id"]], (await world.search(text="green", collapse=True, top_k=1))["cursor"]
    while cursor is not None:
        page = await world.search(cursor=cursor)
        pages += [match["image_id"] for match in page["matches"]]
        cursor = page["cursor"]
    assert pages == [match["image_id"] for match in answer["matches"]]


async def test_variety_brings_other_things_forward(world: World, album: dict[str, str]) -> None:
    for mark in range(1, 5):
        await world.add(picture("red", mark=mark, size=(60 + mark, 40)), f"red-{mark}.png")
    by_score = names(await world.search(text="red", top_k=3))
    varied = names(await world.search(text="red", top_k=3, diversity=0.6))
    assert all(name.startswith("red") for name in by_score)
    assert varied[0] == by_score[0]
    assert any(not name.startswith("red") for name in varied)


# --- pages


async def test_a_cursor_alone_brings_the_next_page_of_the_whole_question(world: World, album: dict[str, str]) -> None:
    """Of a form with a picture, a region and a filter, none of which is sent again."""
    status, first = await posted(
        world,
        halves("red", "blue", size=(200, 100)),
        region=[0, 0, 100, 100],
        top_k="2",
        explain="true",
        filter={"name": "*.png"},
        like=[{"image_id": album["yellow"]}],
    )
    assert status == 200
    second = await world.search(cursor=first["cursor"])
    assert [term["of"] for term in second["matches"][0]["explanation"]["terms"]] == ["like", "region"]
    rest = await world.search(cursor=second["cursor"], top_k=100) if second["cursor"] else {"matches": []}
    shown = [match["image_id"] for answer in (first, second, rest) for match in answer["matches"]]
    assert len(shown) == len(set(shown)) == len(album) - 1
    assert second["text"] == ""
    assert second["search_id"] != first["search_id"]
    assert [len(first["matches"]), len(second["matches"])] == [2, 2]


async def test_the_last_page_has_no_cursor(world: World, album: dict[str, str]) -> None:
    assert (await world.search(text="red", top_k=len(album)))["cursor"] is None
    assert (await world.search(text="red", top_k=len(album) - 1))["cursor"] is not None
    assert (await world.search(text="red", offset=len(album)))["cursor"] is None


async def test_a_cursor_that_was_touched_or_made_elsewhere_is_refused(world: World, album: dict[str, str]) -> None:
    answer = await world.search(text="red", top_k=1)
    cursor = answer["cursor"]
    other_letter = "B" if cursor[0] == "A" else "A"
    for forged in (cursor[:-4], cursor[1:], other_letter + cursor[1:], cursor + "AAAA", answer["jwt"], "ä", "A" * 50):
        status, problem = await world.refused(cursor=forged)
        assert (status, problem["errors"][0]["field"]) == (422, "cursor"), forged
    rated = await world.client.post("/api/v1/create-feedback", json={"jwt": cursor, "user_feedback": 5})
    assert rated.status == 401


async def test_a_cursor_of_other_models_says_to_search_again(world: World, album: dict[str, str]) -> None:
    cursor = (await world.search(text="red", top_k=1))["cursor"]
    other = TEXT_SPACE.model_copy(update={"collection": "clip-fake-2"})
    world.embedder.models = world.embedder.models.model_copy(update={"spaces": (other, IMAGE_SPACE)})
    await asyncio.sleep(1.05)  # for so long it is remembered which models there are
    status, problem = await world.refused(cursor=cursor)
    assert (status, problem["detail"]) == (409, "other models answer by now: search again")


# --- two models


async def test_two_models_are_compared_image_by_image(world: World, album: dict[str, str]) -> None:
    status, compared = await posted(
        world, picture("red", mark=5), to="compare-models", models=["CLIP", "resnet"], top_k="2", scope="both"
    )
    assert status == 200
    one, other = compared["answers"]
    assert (one["model_name"], other["model_name"]) == ("CLIP", "ResNet")
    assert compared["overlap"] == len({m["image_id"] for m in one["matches"]} & {m["image_id"] for m in other["matches"]})
    for image in compared["images"]:
        for answer, rank, score in zip((one, other), image["ranks"], image["scores"], strict=True):
            found = [(n, m["score"]) for n, m in enumerate(answer["matches"], 1) if m["image_id"] == image["image_id"]]
            assert found == ([] if rank is None else [(rank, score)])
    assert compared["images"][0]["image_id"] in {match["image_id"] for match in one["matches"]}


async def test_what_cannot_be_compared_is_refused(world: World, album: dict[str, str]) -> None:
    async def refused(**question: Any) -> tuple[int, str]:
        answer = await world.client.post("/api/v1/compare-models", json=question)
        problem = await answer.json(content_type=None)
        return answer.status, problem["errors"][0]["field"]

    assert await refused(text="red", models=["CLIP", "ResNet"]) == (422, "model")
    assert await refused(text="red", models=["CLIP"]) == (422, "models.1")
    assert await refused(image_id=album["red"], models=["CLIP", "nothing"]) == (422, "model")
    assert await refused(text="red", models=["CLIP", "CLIP"], cursor="x") == (422, "cursor")
