"""Searching: the answer's shape, what it finds, and what it refuses."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

import jwt
import pytest
from aiohttp import FormData

from core.errors import ModelUnavailable, VectorsUnavailable
from core.ports import Hit
from core.schemas import EngineState, ImageRecord, ImageState, Priority, SegmentMode
from searchsvc.matches import match_view
from searchsvc.ranking import Ranked
from tests.fakes import IMAGE_SPACE, READY, TEXT_SPACE, picture
from tests.unit.searchsvc.conftest import SECRET, World


@pytest.fixture
async def colours(world: World) -> dict[str, str]:
    """Four pictures; image ids by colour."""
    return {
        "red": await world.add(picture("red"), "a/red.png", taken=datetime(2024, 6, 1, 10, tzinfo=UTC)),
        "green": await world.add(
            picture("green", size=(200, 100)), "a/b/green.png", taken=datetime(2024, 6, 2, 23, 59, tzinfo=UTC)
        ),
        "blue": await world.add(picture("blue"), "blue.png", taken=datetime(2024, 6, 3, tzinfo=UTC)),
        "yellow": await world.add(picture("yellow"), "z/yellow.png", "a/copy of yellow.png"),
    }


def _form(**fields: Any) -> FormData:
    form = FormData(default_to_multipart=True)
    for name, value in fields.items():
        if isinstance(value, bytes):
            form.add_field(name, value, filename="query.png", content_type="image/png")
        else:
            form.add_field(name, value)
    return form


async def test_the_answer_keeps_the_contract(world: World, colours: dict[str, str]) -> None:
    answer = await world.search(text="red")
    assert answer["text"] == "red"
    assert answer["model_name"] == "CLIP"
    assert isinstance(answer["jwt"], str)
    best = answer["matches"][0]
    assert best["image_name"] == "red.png"
    assert best["path"] == "a/red.png"
    assert best["image_id"] == colours["red"]
    assert best["image_url"] == f"/api/v1/images/{colours['red']}/file"
    assert best["thumbnail_url"] == f"/api/v1/images/{colours['red']}/thumbnail"
    assert (best["width"], best["height"]) == (64, 48)
    assert best["segment"] is None
    scores = [match["score"] for match in answer["matches"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 4
    assert answer["took_ms"] > 0


async def test_the_token_says_what_was_asked_and_shown(world: World, colours: dict[str, str]) -> None:
    answer = await world.search(text="red", negative_text="blue", top_k=2)
    claims = jwt.decode(answer["jwt"], SECRET, algorithms=["HS256"], audience="imagesearch-feedback", issuer="imagesearch")
    assert claims["ids"] == [match["image_id"] for match in answer["matches"]]
    assert claims["sid"] == answer["search_id"]
    assert claims["query"] == {"text": "red", "negative_text": "blue", "scope": "images"}
    assert claims["model"] == TEXT_SPACE.collection
    assert claims["exp"] - claims["iat"] == 86_400
    of_match = jwt.decode(answer["matches"][1]["jwt"], SECRET, algorithms=["HS256"], audience="imagesearch-feedback")
    assert of_match["ids"] == [answer["matches"][1]["image_id"]]
    assert of_match["jti"] != claims["jti"]


async def test_text_is_trimmed_and_normalised(world: World) -> None:
    assert (await world.search(text="  cafe\u0301 \n"))["text"] == "caf\u00e9"


async def test_pages_follow_each_other_without_gap_or_overlap(world: World, colours: dict[str, str]) -> None:
    whole = [match["image_id"] for match in (await world.search(text="red"))["matches"]]
    paged = [(await world.search(text="red", top_k=1, offset=n))["matches"][0]["image_id"] for n in range(4)]
    assert paged == whole
    assert (await world.search(text="red", offset=10_000))["matches"] == []


async def test_a_least_score_leaves_the_rest_out(world: World, colours: dict[str, str]) -> None:
    matches = (await world.search(text="red", min_score=0.8))["matches"]
    assert [match["image_name"] for match in matches] == ["red.png"]


async def test_what_is_not_wanted_sinks(world: World, colours: dict[str, str]) -> None:
    plain = {match["image_name"]: match["score"] for match in (await world.search(text="red green"))["matches"]}
    without = {
        match["image_name"]: match["score"] for match in (await world.search(text="red green", negative_text="green"))["matches"]
    }
    assert without["green.png"] < plain["green.png"]
    assert max(without, key=lambda name: without[name]) == "red.png"


async def test_a_picture_finds_itself_without_being_segmented_and_ahead_of_ingestion(
    world: World, colours: dict[str, str]
) -> None:
    world.embedder.analysed.clear()
    response = await world.client.post("/api/v1/search-image", data=_form(file=picture("blue"), top_k="1"))
    answer = await response.json()
    assert response.status == 200
    assert answer["text"] == ""
    assert answer["matches"][0]["image_id"] == colours["blue"]
    assert answer["matches"][0]["score"] == pytest.approx(1.0, abs=1e-5)
    assert world.embedder.analysed == [(SegmentMode.NONE, Priority.QUERY)]


async def test_a_picture_can_be_asked_of_the_model_that_knows_no_words(world: World, colours: dict[str, str]) -> None:
    for name in ("resnet", IMAGE_SPACE.collection.upper()):
        response = await world.client.post("/api/v1/search-image", data=_form(file=picture("blue"), model=name))
        answer = await response.json()
        assert answer["model_name"] == "ResNet"
        assert answer["matches"][0]["image_id"] == colours["blue"]


async def test_words_and_picture_are_one_combined_query(world: World, colours: dict[str, str]) -> None:
    response = await world.client.post("/api/v1/search-image", data=_form(file=picture("blue"), text="red"))
    names = [match["image_name"] for match in (await response.json())["matches"]]
    assert set(names[:2]) == {"red.png", "blue.png"}


async def test_form_and_json_give_the_same_answer(world: World, colours: dict[str, str]) -> None:
    question = {"text": "green", "top_k": "3", "offset": "1", "min_score": "-0.5", "scope": "images", "filter": '{"folder": "a"}'}
    response = await world.client.post("/api/v1/search-image", data=_form(**question, negative_text=""))
    by_form = (await response.json())["matches"]
    by_json = (await world.search(text="green", top_k=3, offset=1, min_score=-0.5, filter={"folder": "a"}))["matches"]
    assert [match["image_id"] for match in by_form] == [match["image_id"] for match in by_json]
    assert len(by_json) == 2


async def test_more_like_an_image_leaves_the_image_itself_out(world: World, colours: dict[str, str]) -> None:
    twin = await world.add(picture("red", mark=9), "twin.png")
    for scope in ("images", "both"):
        matches = (await world.search(image_id=colours["red"], scope=scope))["matches"]
        assert matches[0]["image_id"] == twin
        assert colours["red"] not in {match["image_id"] for match in matches}


async def test_more_like_an_unknown_image_is_404_and_like_one_not_yet_indexed_409(world: World) -> None:
    status, problem = await world.refused(image_id="0" * 64)
    assert (status, problem["code"]) == (404, "not_found")
    pending = ImageRecord(image_id="1" * 64, state=ImageState.PENDING, paths=("a.png",), bytes=1, noticed_at=datetime.now(UTC))
    world.catalog.records[pending.image_id] = pending
    status, problem = await world.refused(image_id=pending.image_id)
    assert status == 409
    assert "pending" in problem["detail"]


async def test_regions_are_found_with_their_box_label_and_mask(world: World, colours: dict[str, str]) -> None:
    best = (await world.search(text="green", scope="segments"))["matches"][0]
    assert best["image_id"] == colours["green"]
    assert best["segment"] == {
        "n": 0,
        "label": "half",
        "score": 0.75,
        "bbox": [0.0, 0.0, 100.0, 100.0],
        "area": 0.5,
        "mask_url": f"/api/v1/images/{colours['green']}/segments/0/mask",
    }


async def test_both_shows_each_image_once_raised_by_a_region_that_is_better(world: World, colours: dict[str, str]) -> None:
    both = (await world.search(text="green", scope="both"))["matches"]
    assert len({match["image_id"] for match in both}) == len(both) == 4
    wholes = {match["image_id"]: match["score"] for match in (await world.search(text="green"))["matches"]}
    regions = {match["image_id"]: match["score"] for match in (await world.search(text="green", scope="segments"))["matches"]}
    for match in both:
        whole, region = wholes[match["image_id"]], regions[match["image_id"]]
        assert match["score"] == pytest.approx(max(whole, whole + 0.6 * (region - whole)), abs=1e-6)
        assert (match["segment"] is not None) == (region > whole)
    assert any(match["segment"] for match in both)
    second_page = (await world.search(text="green", scope="both", top_k=2, offset=2))["matches"]
    assert [match["image_id"] for match in second_page] == [match["image_id"] for match in both[2:]]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"folder": "a"}, {"red.png", "green.png", "copy of yellow.png"}),
        ({"folder": "/a/b/"}, {"green.png"}),
        ({"folder": ""}, {"red.png", "green.png", "blue.png", "copy of yellow.png"}),
        ({"folder": "b"}, set()),
        ({"label": "half"}, {"red.png", "green.png", "blue.png", "copy of yellow.png"}),
        ({"label": ["HALF", "none"]}, {"red.png", "green.png", "blue.png", "copy of yellow.png"}),
        ({"label": "cat"}, set()),
        ({"date": {"from": "2024-06-01", "to": "2024-06-02"}}, {"red.png", "green.png"}),
        ({"date": {"to": "2024-06-02T12:00:00+02:00"}}, {"red.png"}),
        ({"date": {"from": "2024-06-03", "to": "2024-06-03"}}, {"blue.png"}),
        ({"size": {"min_width": 100}}, {"green.png"}),
        ({"size": {"max_width": 64, "min_height": 48}, "folder": "a"}, {"red.png", "copy of yellow.png"}),
        ({"size": {"max_bytes": 1}}, set()),
    ],
)
async def test_filters_let_through_what_they_name(
    world: World, colours: dict[str, str], wanted: dict[str, Any], names: set[str]
) -> None:
    found = {match["image_name"] for match in (await world.search(text="red", filter=wanted))["matches"]}
    assert {"copy of yellow.png" if name == "yellow.png" else name for name in found} == names


async def test_the_path_shown_lies_in_the_folder_asked_for(world: World, colours: dict[str, str]) -> None:
    for folder in ("a", "z"):
        matches = (await world.search(text="yellow", filter={"folder": folder}))["matches"]
        assert PurePosixPath(matches[0]["path"]).parts[0] == folder


@pytest.mark.parametrize(
    ("question", "field"),
    [
        ({}, "text"),
        ({"text": None}, "text"),
        ({"text": ""}, "text"),
        ({"text": " \n\t "}, "text"),
        ({"text": "x" * 1001}, "text"),
        ({"text": "x" * 10_000}, "text"),
        ({"text": 5}, "text"),
        ({"text": ["red"]}, "text"),
        ({"text": "\ud800"}, "text"),
        ({"negative_text": "red"}, "text"),
        ({"text": "a", "top_k": 0}, "top_k"),
        ({"text": "a", "top_k": 101}, "top_k"),
        ({"text": "a", "top_k": "5"}, "top_k"),
        ({"text": "a", "top_k": True}, "top_k"),
        ({"text": "a", "top_k": 5.0}, "top_k"),
        ({"text": "a", "top_k": None}, "top_k"),
        ({"text": "a", "offset": -1}, "offset"),
        ({"text": "a", "offset": 10_001}, "offset"),
        ({"text": "a", "min_score": float("nan")}, "min_score"),
        ({"text": "a", "min_score": float("inf")}, "min_score"),
        ({"text": "a", "min_score": "0.5"}, "min_score"),
        ({"text": "a", "min_score": True}, "min_score"),
        ({"text": "a", "scope": "regions"}, "scope"),
        ({"text": "a", "model": "GPT"}, "model"),
        ({"text": "a", "model": ""}, "model"),
        ({"text": "a", "model": "ResNet"}, "model"),
        ({"image_id": "abc"}, "image_id"),
        ({"image_id": "A" * 64}, "image_id"),
        ({"text": "a", "colour": "red"}, "colour"),
        ({"text": "a", "filter": {"folder": "../etc"}}, "filter.folder"),
        ({"text": "a", "filter": {"label": []}}, "filter.label"),
        ({"text": "a", "filter": {"label": [1]}}, "filter.label.0"),
        ({"text": "a", "filter": {"label": "\udfff"}}, "filter.label.0"),
        ({"text": "a", "filter": {"folder": "\udfff"}}, "filter.folder"),
        ({"text": "a", "filter": {"size": {"min_width": "1"}}}, "filter.size.min_width"),
        ({"text": "a", "filter": {"size": {"min_width": -1}}}, "filter.size.min_width"),
        ({"text": "a", "filter": {"date": {"from": "2024-06-02", "to": "2024-06-01"}}}, "filter.date"),
        ({"text": "a", "filter": {"date": {"from": "yesterday"}}}, "filter.date.from"),
        ({"text": "a", "filter": {"date": {"from": 5}}}, "filter.date.from"),
        ({"text": "a", "filter": {"date": {"start": "2024-06-02"}}}, "filter.date.start"),
        ({"text": "a", "filter": {"taken": {}}}, "filter.taken"),
        ({"text": "a", "filter": []}, "filter"),
    ],
)
async def test_what_is_not_acceptable_is_422_and_names_the_field(world: World, question: dict[str, Any], field: str) -> None:
    status, problem = await world.refused(**question)
    assert status == 422
    assert problem["errors"][0]["field"] == field


async def test_a_thousand_characters_are_still_searched(world: World) -> None:
    assert (await world.search(text="é" * 1000))["text"] == "é" * 1000


async def test_an_unknown_model_is_told_the_known_ones(world: World) -> None:
    _, problem = await world.refused(text="a", model="GPT")
    assert "CLIP" in problem["detail"]
    assert "ResNet" in problem["detail"]


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b"null", "application/json", 422),
        (b'"red"', "application/json", 422),
        (b"text=red", "application/x-www-form-urlencoded", 415),
        (b'{"text": "red"}', "text/plain", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=abc", 400),
        (b"--abc\r\n\r\n", "multipart/form-data; boundary=abc", 400),
        (io.BytesIO(b'{"text": "' + b"x" * 2**20 + b'"}'), "application/json", 413),
    ],
)
async def test_bodies_that_cannot_be_read_are_refused_by_kind(
    world: World, body: bytes | io.BytesIO, content_type: str, status: int
) -> None:
    answer = await world.client.post("/api/v1/search-image", data=body, headers={"Content-Type": content_type})
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"file": b"this is text"}, 415),
        ({"file": b""}, 422),
        ({"file": picture("red"), "top_k": "many"}, 422),
        ({"file": picture("red"), "top_k": "5.0"}, 422),
        ({"file": picture("red"), "min_score": "nan"}, 422),
        ({"file": picture("red"), "filter": "{"}, 422),
        ({"file": picture("red"), "unknown": "1"}, 422),
        ({"file": picture("red"), "text": "x" * 1001}, 422),
        ({"file": picture("red"), "text": "x" * 100_000}, 422),
        ({"file": picture("red"), "text": "red", "model": "ResNet"}, 422),
        ({"text": ""}, 422),
        ({"file": "just text"}, 415),
    ],
)
async def test_forms_are_validated_as_json_is(world: World, fields: dict[str, Any], status: int) -> None:
    answer = await world.client.post("/api/v1/search-image", data=_form(**fields))
    assert answer.status == status, await answer.text()
    assert answer.content_type == "application/problem+json"


async def test_a_form_of_a_page_on_which_no_file_was_chosen_asks_by_its_words_alone(
    world: World, colours: dict[str, str]
) -> None:
    unchosen = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\nContent-Type: application/octet-stream\r\n\r\n\r\n'
    )
    words = b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\nred\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    answer = await world.client.post("/api/v1/search-image", data=unchosen + words + b"--x--\r\n", headers=headers)
    assert answer.status == 200, await answer.text()
    assert (await answer.json())["matches"][0]["image_id"] == colours["red"]
    for path in ("/api/v1/search-image", "/api/v1/images"):
        alone = await world.client.post(path, data=unchosen + b"--x--\r\n", headers=headers)
        assert alone.status == 422
        assert "`file`" in (await alone.json(content_type="application/problem+json"))["detail"]


@pytest.mark.parametrize("content", [picture("red"), b"\xff" * 100_000])
async def test_a_picture_in_a_field_of_another_name_is_told_where_it_belongs(world: World, content: bytes) -> None:
    answer = await world.client.post("/api/v1/search-image", data=_form(image=content))
    assert answer.status in {400, 422}
    assert (await answer.json(content_type="application/problem+json"))["detail"].endswith("pictures go as `file`")


@pytest.mark.parametrize(
    ("question", "told"),
    [
        ({"text": " "}, "text: Text should have at least 1 character, not 0"),
        ({"text": "red" * 400}, "text: Text should have at most 1000 characters, not 1200"),
        ({"text": "red", "filter": []}, "filter: Input should be an object"),
    ],
)
async def test_a_refusal_speaks_of_characters_and_objects(world: World, question: dict[str, Any], told: str) -> None:
    assert (await world.refused(**question))[1]["detail"] == told


@pytest.mark.parametrize(
    ("score", "shown"), [(1 + 2**-23, 1.0), (-1 - 2**-23, -1.0), (1.25, 1.25), (0.9999999, 0.9999999), (0.25, 0.25)]
)
def test_a_score_is_not_above_1_by_rounding(score: float, shown: float) -> None:
    payload = {"kind": "image", "paths": ["a.png"], "image_id": "0" * 64, "width": 4, "height": 3}
    match = match_view(Ranked(score, "key", Hit("key", score, payload, None), whole=score, region=None), None)
    assert match is not None
    assert match.score == shown


async def test_while_models_load_or_are_missing_it_is_503_and_says_why(world: World) -> None:
    world.embedder.models = READY.model_copy(update={"state": EngineState.LOADING, "spaces": ()})
    response = await world.client.post("/api/v1/search-image", json={"text": "a"})
    assert response.status == 503
    assert int(response.headers["Retry-After"]) >= 1
    notice = "put weights into MODELS_DIR"
    world.embedder.models = READY.model_copy(update={"state": EngineState.NO_MODEL, "spaces": (), "notice": notice})
    status, problem = await world.refused(text="a")
    assert (status, problem["code"], problem["detail"]) == (503, "no_model", notice)
    world.embedder.models = READY
    assert (await world.search(text="a"))["matches"] == []


async def test_parts_that_are_away_make_it_503(world: World) -> None:
    world.vectors.away = VectorsUnavailable("Qdrant does not answer")
    assert (await world.refused(text="a"))[0] == 503
    world.vectors.away = None
    world.embedder.away = ModelUnavailable("the model service does not answer")
    assert (await world.refused(text="something new"))[0] == 503


async def test_the_same_words_are_embedded_once_until_the_models_change(world: World) -> None:
    for _ in range(3):
        await world.search(text="red")
    assert world.embedder.text_calls == 1


async def test_a_fallback_is_said_with_every_answer(world: World) -> None:
    world.embedder.models = READY.model_copy(update={"notice": "the starter model is in use"})
    assert (await world.search(text="red"))["notice"] == "the starter model is in use"


async def test_an_image_whose_last_path_is_gone_is_not_shown(world: World, colours: dict[str, str]) -> None:
    for points in world.vectors.stored.values():
        for point in points.values():
            if point.payload["image_id"] == colours["red"]:
                point.payload["paths"].clear()
    matches = (await world.search(text="red"))["matches"]
    assert colours["red"] not in {match["image_id"] for match in matches}
