"""Filters and facets as the API takes them; what each filter lets through is shown in tests/congruence/test_filters.py."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from aiohttp import FormData

from core.errors import VectorsUnavailable
from core.ports import Point
from core.schemas import EngineState
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import shown_path
from tests.fakes import READY, FakeVectorStore, picture
from tests.unit.searchsvc.conftest import World

ROME = {"lat": 41.9, "lon": 12.5}


def place(vectors: FakeVectorStore, image_id: str, **fields: Any) -> None:
    """Change what is told of an indexed picture."""
    for held in vectors.stored.values():
        for point in list(held.values()):
            if point.payload["image_id"] == image_id:
                held[point.id] = Point(point.id, point.vector, {**point.payload, **fields})


@pytest.fixture
async def three(world: World) -> dict[str, str]:
    """Image ids by colour: red is taken in Rome, green stands upright, blue is square and lies in no folder."""
    ids = {
        "red": await world.add(picture("red"), "Trip/Rome/IMG_01.png"),
        "green": await world.add(picture("green", size=(40, 80)), "Trip/IMG_02.png"),
        "blue": await world.add(picture("blue", size=(50, 50)), "Grün.png"),
    }
    place(world.vectors, ids["red"], **ROME)
    return ids


@pytest.mark.parametrize(
    ("wanted", "colours"),
    [
        ({"name": "img"}, {"red", "green"}),
        ({"name": "IMG_*2.PNG"}, {"green"}),
        ({"name": "GRÜN*"}, {"blue"}),
        ({"name": "*1.png", "folder": "Trip"}, {"red"}),
        ({"label_all": "half"}, {"red", "green", "blue"}),
        ({"label_all": ["HALF", "cat"]}, set()),
        ({"label_count": {"half": {"gte": 1}}}, {"red", "green", "blue"}),
        ({"label_count": {"half": {"gte": 2}}}, set()),
        ({"label_count": {"cat": {"lte": 0}, "Half": {"gte": 1, "lte": 1}}}, {"red", "green", "blue"}),
        ({"orientation": "landscape"}, {"red"}),
        ({"orientation": ["portrait", "square"]}, {"green", "blue"}),
        ({"size": {"max_megapixels": 0.0031}}, {"red", "blue"}),
        ({"gps_box": {"south": 41, "west": 12, "north": 42, "east": 13}}, {"red"}),
        ({"gps_box": {"south": 41, "west": 13, "north": 42, "east": 12}}, set()),
    ],
)
async def test_filters_are_taken_as_json_and_in_a_form(
    world: World, three: dict[str, str], wanted: dict[str, Any], colours: set[str]
) -> None:
    meant = {three[colour] for colour in colours}
    found = {match["image_id"] for match in (await world.search(text="red", filter=wanted))["matches"]}
    form = FormData({"text": "red", "filter": json.dumps(wanted)}, default_to_multipart=True)
    answer = await (await world.client.post("/api/v1/search-image", data=form)).json()
    assert found == meant
    assert {match["image_id"] for match in answer["matches"]} == meant


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "*"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": 5}, "name"),
        ({"name": "a*b*c*d*e*f"}, "name"),
        ({"name": "x" * 256}, "name"),
        ({"label_all": []}, "label_all"),
        ({"label_all": ["dog"] * 51}, "label_all"),
        ({"label_count": {}}, "label_count"),
        ({"label_count": {"dog": {}}}, "label_count.dog"),
        ({"label_count": {"dog": 2}}, "label_count.dog"),
        ({"label_count": {"dog": {"gte": -1}}}, "label_count.dog.gte"),
        ({"label_count": {"dog": {"gte": 3, "lte": 2}}}, "label_count.dog"),
        ({"label_count": {"dog": {"gt": 3}}}, "label_count.dog.gt"),
        ({"orientation": "wide"}, "orientation.0"),
        ({"orientation": []}, "orientation"),
        ({"size": {"min_megapixels": "12"}}, "size.min_megapixels"),
        ({"size": {"min_megapixels": float("nan")}}, "size.min_megapixels"),
        ({"size": {"min_width": 5, "max_width": 4}}, "size"),
        ({"gps_box": {"south": 1, "west": 1, "north": 2}}, "gps_box.east"),
        ({"gps_box": {"south": 2, "west": 1, "north": 1, "east": 2}}, "gps_box"),
        ({"gps_box": {"south": 1, "west": 1, "north": 91, "east": 2}}, "gps_box.north"),
        ({"gps_box": {"south": 1, "west": -181, "north": 2, "east": 2}}, "gps_box.west"),
        ({"gps_box": {"south": True, "west": 1, "north": 2, "east": 2}}, "gps_box.south"),
    ],
)
async def test_a_filter_that_is_not_acceptable_is_422_and_names_the_field(
    world: World, wanted: dict[str, Any], field: str
) -> None:
    status, problem = await world.refused(text="a", filter=wanted)
    assert (status, problem["errors"][0]["field"]) == (422, f"filter.{field}")


async def test_matches_and_images_tell_when_and_where_they_were_taken(world: World, three: dict[str, str]) -> None:
    for colour, orientation, location in (("red", "landscape", ROME), ("green", "portrait", None), ("blue", "square", None)):
        [match, *_] = (await world.search(text=colour))["matches"]
        image = await (await world.client.get(f"/api/v1/images/{three[colour]}")).json()
        for told in (match, image):
            assert told["image_id"] == three[colour]
            assert (told["orientation"], told["location"]) == (orientation, location)
            assert datetime.fromisoformat(told["taken_at"]) == datetime(2024, 6, 15, 12, tzinfo=UTC)


async def test_a_picture_of_an_earlier_release_is_shown_with_what_is_known_of_it(world: World) -> None:
    image_id = await world.add(picture("red"), "a.png")
    added = {"names", "label_counts", "pixels", "orientation", "layout"}
    for held in world.vectors.stored.values():
        for point in list(held.values()):
            kept = {key: value for key, value in point.payload.items() if key not in added}
            held[point.id] = Point(point.id, point.vector, {**kept, "taken_at": 1e300})
    [match] = (await world.search(text="red"))["matches"]
    assert (match["image_id"], match["orientation"], match["taken_at"], match["location"]) == (image_id, "landscape", None, None)


@pytest.mark.parametrize("lies_in", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
async def test_a_folder_is_found_however_its_accents_are_spelt(
    world: World, lies_in: Literal["NFC", "NFD"], asked: Literal["NFC", "NFD"]
) -> None:
    folder = unicodedata.normalize(lies_in, "Café/Über")
    image_id = await world.add(picture("red"), f"{folder}/one.png")
    await world.add(picture("green"), "Cafe/one.png")
    [match] = (await world.search(text="red", filter={"folder": unicodedata.normalize(asked, "Café/Über")}))["matches"]
    assert (match["image_id"], match["path"]) == (image_id, f"{folder}/one.png")


async def test_an_image_is_shown_while_the_vectors_are_away(world: World, three: dict[str, str]) -> None:
    world.vectors.away = VectorsUnavailable("Qdrant does not answer")
    answer = await world.client.get(f"/api/v1/images/{three['red']}")
    image = await answer.json()
    assert (answer.status, image["orientation"], image["taken_at"], image["location"]) == (200, "landscape", None, None)


def test_the_path_shown_is_the_one_that_was_asked_for() -> None:
    paths = ["a/one.jpg", "b/TWO.jpg", "b/one.jpg"]
    assert shown_path(paths, None) == "a/one.jpg"
    assert shown_path(paths, SearchFilter(folder="b")) == "b/TWO.jpg"
    assert shown_path(paths, SearchFilter(name="two*")) == "b/TWO.jpg"
    assert shown_path(paths, SearchFilter(name="*ne.jpg", folder="b")) == "b/one.jpg"
    assert shown_path([], SearchFilter(name="two")) is None


# --- facets ------------------------------------------------------------------------------------------------------------


async def facets(world: World, **query: str) -> tuple[int, dict[str, Any]]:
    answer = await world.client.get("/api/v1/facets", params=query)
    return answer.status, await answer.json(content_type=None)


async def test_facets_count_pictures_by_label_and_folder(world: World, three: dict[str, str]) -> None:
    status, labels = await facets(world, field="labels")
    assert (status, labels) == (200, {"field": "labels", "images": 3, "values": [{"value": "half", "images": 3}], "more": False})
    _, folders = await facets(world, field="folders")
    assert folders["values"] == [{"value": "Trip", "images": 2}, {"value": "Trip/Rome", "images": 1}]


async def test_facets_count_under_a_filter_and_say_when_there_are_more(world: World, three: dict[str, str]) -> None:
    _, filtered = await facets(world, field="folders", filter=json.dumps({"orientation": "portrait"}))
    assert (filtered["images"], filtered["values"]) == (1, [{"value": "Trip", "images": 1}])
    _, cut = await facets(world, field="folders", limit="1")
    assert (cut["values"], cut["more"]) == ([{"value": "Trip", "images": 2}], True)


async def test_facets_of_nothing_are_none(world: World) -> None:
    assert await facets(world, field="labels") == (200, {"field": "labels", "images": 0, "values": [], "more": False})


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({}, "field"),
        ({"field": "width"}, "field"),
        ({"field": "labels", "limit": "0"}, "limit"),
        ({"field": "labels", "limit": "1001"}, "limit"),
        ({"field": "labels", "limit": "ten"}, "limit"),
        ({"field": "labels", "filter": "{"}, "filter"),
        ({"field": "labels", "filter": "[]"}, "filter"),
        ({"field": "labels", "filter": '{"folder": "../x"}'}, "filter.folder"),
    ],
)
async def test_facets_that_cannot_be_are_422_and_name_the_field(world: World, query: dict[str, str], field: str) -> None:
    status, problem = await facets(world, **query)
    assert (status, problem["errors"][0]["field"]) == (422, field)


async def test_facets_wait_for_models_and_vectors(world: World) -> None:
    world.embedder.models = READY.model_copy(update={"state": EngineState.NO_MODEL})
    assert (await facets(world, field="labels"))[0] == 503
    world.embedder.models, world.vectors.away = READY, VectorsUnavailable("Qdrant does not answer")
    assert (await facets(world, field="labels"))[0] == 503
