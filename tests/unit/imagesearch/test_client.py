"""What the clients do with a service that works: the same cases for the blocking and the awaited one."""

from __future__ import annotations

import asyncio
import io
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from core.errors import Unavailable as ServiceAway
from core.schemas import Failure, ImageState
from imagesearch import Conflict, NotFound, Progress, Question, Refused, SearchFilter, Unauthorized, Unavailable
from tests.fakes import image_id_of, index, picture
from tests.unit.imagesearch.conftest import Caller, MakeCaller, Stub, document
from tests.unit.searchsvc.conftest import MakeWorld, World
from tests.unit.searchsvc.test_asking import halves


@pytest.fixture
async def colours(world: World) -> dict[str, str]:
    """Three indexed pictures, by colour."""
    return {colour: await world.add(picture(colour), f"{colour}/{colour}.png") for colour in ("red", "green", "blue")}


# --- search


async def test_words_find_and_the_answer_has_types(call: Caller, colours: dict[str, str]) -> None:
    answer = await call("search", "red", top_k=2)
    assert [len(answer.matches), answer.matches[0].image_id, answer.matches[0].path] == [2, colours["red"], "red/red.png"]
    assert answer.matches[0].score > answer.matches[1].score
    assert (answer.text, answer.model_name) == ("red", "CLIP")


async def test_a_picture_finds_as_bytes_as_a_path_and_as_an_open_file(
    call: Caller, colours: dict[str, str], tmp_path: Path
) -> None:
    content = picture("blue", mark=9)
    path = tmp_path / "query ü.png"
    path.write_bytes(content)
    for question in (content, path, str(path), io.BytesIO(content)):
        assert (await call("search", picture=question)).matches[0].image_id == colours["blue"]


async def test_a_picture_and_words_go_together_with_every_option(call: Caller, colours: dict[str, str]) -> None:
    options: dict[str, Any] = {
        "negative_text": "green",
        "scope": "both",
        "top_k": 1,
        "offset": 1,
        "min_score": -1,
        "model": "clip",
    }
    answer = await call("search", "red", picture=picture("blue"), filter={"size": {"min_width": 1}}, **options)
    assert len(answer.matches) == 1
    assert answer.text == "red"


async def test_an_indexed_image_finds_others_and_not_itself(call: Caller, colours: dict[str, str]) -> None:
    found = {match.image_id for match in (await call("search", image_id=colours["red"])).matches}
    assert found == {colours["green"], colours["blue"]}


@pytest.mark.parametrize("wanted", [{"folder": "green"}, SearchFilter(folder="green")])
async def test_a_filter_is_a_mapping_or_the_services_own_model(call: Caller, colours: dict[str, str], wanted: Any) -> None:
    assert [match.image_id for match in (await call("search", "red", filter=wanted)).matches] == [colours["green"]]


async def test_regions_come_with_their_box_and_their_mask(call: Caller, colours: dict[str, str]) -> None:
    region = (await call("search", "red", scope="segments")).matches[0].segment
    assert (region.label, region.n) == ("half", 0)
    mask = Image.open(io.BytesIO(await call("mask", colours["red"], region.n)))
    assert mask.format == "PNG"


@pytest.mark.parametrize("page_size", [1, 2, 3, 100])
async def test_pages_give_everything_once_and_end(call: Caller, colours: dict[str, str], page_size: int) -> None:
    pages = await call.pages(await call("search", "red", top_k=page_size))
    assert sorted(match.image_id for page in pages for match in page.matches) == sorted(colours.values())
    assert len(pages) == -(-3 // page_size)


async def test_nothing_slides_to_the_next_page_when_something_nearer_arrives(
    world: World, call: Caller, colours: dict[str, str]
) -> None:
    first = await call("search", "red", top_k=1)
    await world.add(picture("red", mark=7), "nearer.png")
    pages = await call.pages(first)
    assert sorted(match.image_id for page in pages for match in page.matches) == sorted(colours.values())


async def test_more_goes_on_with_the_whole_question_and_sends_no_picture_again(
    make_caller: MakeCaller, call: Caller, stub: Stub, colours: dict[str, str]
) -> None:
    first = await call("search", picture=picture("blue", mark=9), like=[colours["blue"]], explain=True, top_k=1)
    second = await call("more", first)
    assert [term.of for term in second.matches[0].explanation.terms] == ["like", "file"]
    assert await call("more", second) is None, "the example is no answer, so two are all"
    stub.answers = [document(second.model_dump(mode="json"))]
    await make_caller(stub.url)("more", first.cursor, top_k=7)
    assert json.loads(stub.bodies[0]) == {"cursor": first.cursor, "top_k": 7}


async def test_the_length_of_the_next_page_is_that_of_the_question_or_another(call: Caller, colours: dict[str, str]) -> None:
    first = await call("search", "red", top_k=1)
    assert [len((await call("more", first, **how)).matches) for how in ({}, {"top_k": 100})] == [1, 2]


async def test_a_cursor_that_is_none_is_refused(call: Caller) -> None:
    with pytest.raises(Refused) as refused:
        await call("more", "AAAA")
    assert refused.value.field == "cursor"


async def test_what_the_service_refuses_is_told_in_its_own_words(call: Caller) -> None:
    with pytest.raises(Refused, match="top_k") as refused:
        await call("search", "red", top_k=1000)
    error = refused.value
    assert (error.status, error.code, error.field) == (422, "unprocessable_entity", "top_k")
    assert error.request_id


async def test_a_search_can_be_asked_as_if_nothing_had_been_rated(call: Caller, stub: Stub, make_caller: MakeCaller) -> None:
    """As JSON and as a form, and nothing is said of it where it is not asked for."""
    answer = await call("search", "red")
    stub.answers = [document(answer.model_dump(mode="json"))]
    asking = make_caller(stub.url)
    for options in ({"feedback": False}, {"feedback": False, "picture": b"x"}, {}):
        await asking("search", "red", **options)
    assert [
        '"feedback":false' in stub.bodies[0],
        'name="feedback"\r\n\r\nfalse' in stub.bodies[1],
        "feedback" in stub.bodies[2],
    ] == [
        True,
        True,
        False,
    ]
    assert (await call("search", "red", picture=picture("red"), feedback=False)).feedback is None


# --- other ways to ask


@pytest.fixture
async def halved(world: World, colours: dict[str, str]) -> str:
    """An image whose only region, its left half, is red; the rest is black."""
    return await world.add(halves("red", "black"), "red-in-black.png")


async def test_several_pictures_are_one_question(call: Caller, colours: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "q.png").write_bytes(picture("red", mark=9))
    answer = await call("search", picture=[tmp_path / "q.png", picture("blue", mark=9)], explain=True, top_k=2)
    assert {match.image_id for match in answer.matches} == {colours["red"], colours["blue"]}
    assert [term.of for term in answer.matches[0].explanation.terms] == ["file", "file"]
    with pytest.raises(Refused) as refused:
        await call("search", picture=[picture("red", mark=n) for n in range(5)])
    assert refused.value.field == "file"


async def test_a_part_of_a_picture_and_a_region_of_an_indexed_one_are_asked_by(
    call: Caller, colours: dict[str, str], halved: str
) -> None:
    query = halves("green", "blue", size=(200, 100))
    for x, colour in ((0, "green"), (100.5, "blue")):
        answer = await call("search", picture=query, region=(x, 0, 99, 100))
        assert answer.matches[0].image_id == colours[colour]
    for part in ({"segment": 0}, {"region": (0, 0, 32, 48)}):
        answer = await call("search", image_id=halved, **part)
        assert answer.matches[0].image_id == colours["red"]


async def test_examples_are_ids_regions_and_matches(call: Caller, colours: dict[str, str], halved: str) -> None:
    whole = (await call("search", "green")).matches[0]
    region = next(m for m in (await call("search", "red", scope="segments")).matches if m.image_id == halved)
    answer = await call("search", "yellow", like=[colours["blue"], whole], unlike=[(halved, 0), region], explain=True)
    assert [(term.of, term.ref) for term in answer.matches[0].explanation.terms[1:]] == [
        ("like", colours["blue"]),
        ("like", colours["green"]),
        ("unlike", f"{halved}/0"),
        ("unlike", f"{halved}/0"),
    ]
    assert [match.image_id for match in answer.matches] == [colours["red"]], "an example is no answer"
    in_a_form = await call("search", picture=picture("yellow"), like=[colours["blue"], whole], unlike=[(halved, 0)])
    assert [match.image_id for match in in_a_form.matches] == [colours["red"]]
    assert (await call("search", like=[colours["red"]])).matches


async def test_near_duplicates_variety_and_explanations_are_asked_for(
    world: World, call: Caller, colours: dict[str, str]
) -> None:
    copy = await world.add(picture("green", image_format="BMP"), "copy.bmp")
    first = (await call("search", "green", collapse=True)).matches[0]
    assert {first.image_id, *first.near_duplicates} == {copy, colours["green"]}
    varied = await call("search", "green", diversity=0.6, top_k=2)
    assert varied.matches[1].image_id not in {copy, colours["green"]}
    explained = (await call("search", "green", explain=True)).matches[0]
    (term,) = explained.explanation.terms
    assert (term.of, term.ref) == ("text", "green")
    assert term.weight * term.similarity == pytest.approx(explained.score, abs=1e-5)


@pytest.mark.parametrize("pictures", [0, 1])
async def test_what_is_not_asked_is_not_said(call: Caller, stub: Stub, make_caller: MakeCaller, pictures: int) -> None:
    """So a service of an earlier release answers as well. Zero is said where it is not what leaving it out means."""
    stub.answers = [document((await call("search", "red")).model_dump(mode="json"))]
    await make_caller(stub.url)("search", "red", picture=[b"x"] * pictures, min_score=0)
    for name in ("like", "unlike", "collapse", "diversity", "explain", "segment", "region", "model"):
        assert f'"{name}"' not in stub.bodies[0]
    assert '"min_score"' in stub.bodies[0]


# --- two models


async def test_two_models_are_compared_by_words_or_by_a_whole_question(
    world: World, call: Caller, colours: dict[str, str]
) -> None:
    by_words = await call("compare", ("CLIP", "clip"), "red")
    assert [image.ranks for image in by_words.images] == [(1, 1), (2, 2), (3, 3)]
    question = Question(picture=picture("red", mark=5), like=[colours["blue"]], top_k=1)
    compared = await call("compare", ("CLIP", "resnet"), question)
    assert [answer.model_name for answer in compared.answers] == ["CLIP", "ResNet"]
    assert [len(answer.matches) for answer in compared.answers] == [1, 1]
    assert colours["blue"] not in {image.image_id for image in compared.images}
    asked = await call("ask", question, model="resnet", offset=1)
    assert (asked.model_name, [match.image_id for match in asked.matches]) == ("ResNet", [colours["green"]])


async def test_words_to_a_model_without_words_are_refused(call: Caller, colours: dict[str, str]) -> None:
    with pytest.raises(Refused) as refused:
        await call("compare", ("CLIP", "ResNet"), "red")
    assert refused.value.field == "model"


# --- feedback


async def test_a_search_and_a_match_are_rated_once_each(call: Caller, colours: dict[str, str]) -> None:
    answer = await call("search", "red")
    assert await call("rate", answer, 8) != await call("rate", answer.matches[1], 9)
    for shown in (answer, answer.matches[1].jwt):
        with pytest.raises(Conflict):
            await call("rate", shown, 8)


async def test_one_of_a_searchs_images_is_rated_by_its_id(call: Caller, colours: dict[str, str]) -> None:
    answer = await call("search", "red")
    with pytest.raises(Refused):
        await call("rate", answer, 3, image_id="0" * 64)
    assert await call("rate", answer, 3, image_id=colours["blue"])


async def test_a_forged_token_is_unauthorized(call: Caller) -> None:
    with pytest.raises(Unauthorized):
        await call("rate", "a.b.c", 3)


# --- images


async def test_a_picture_is_uploaded_under_a_name_into_a_folder(world: World, call: Caller) -> None:
    answer = await call("upload", picture("red"), name="mine.png", folder="holiday")
    assert answer.image_id == image_id_of(picture("red"))
    assert (world.images / "holiday/mine.png").is_file()


async def test_a_folder_is_added_with_its_own_name_its_folders_and_without_what_is_no_picture(
    world: World, call: Caller, tmp_path: Path
) -> None:
    photos = _photos(tmp_path)
    os.mkfifo(photos / "pipe.png")
    told: list[Progress] = []
    added = await call("add", photos, folder="from-phone", on_progress=told.append)
    kept = sorted(path.relative_to(world.images).as_posix() for path in world.images.rglob("*") if path.is_file())
    assert kept == ["from-phone/photos/2019/b.png", "from-phone/photos/a.png"]
    assert [(file.path.name, file.state) for file in added] == [("a.png", ImageState.PENDING), ("b.png", ImageState.PENDING)]
    assert [(progress.sent, progress.total) for progress in told] == [(1, 2), (2, 2)]


async def test_a_file_that_is_no_picture_fails_and_the_rest_goes_on(world: World, call: Caller, tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "good.png").write_bytes(picture("red"))
    bad, good = await call("add", [tmp_path / "text.jpg", tmp_path / "good.png"])
    assert (bad.state, bad.reason, bad.image_id) == (ImageState.FAILED, "not_an_image", None)
    assert good.state is ImageState.PENDING


async def test_waiting_follows_each_picture_to_its_end(world: World, call: Caller, tmp_path: Path) -> None:
    """One is indexed and one fails while the client waits; before that the service does not even know them."""
    red, blue = picture("red"), picture("blue")
    (tmp_path / "red.png").write_bytes(red)
    (tmp_path / "blue.png").write_bytes(blue)
    told: list[Progress] = []
    adding = asyncio.create_task(
        call("add", [tmp_path / "red.png", tmp_path / "blue.png"], wait=True, timeout_s=20, on_progress=told.append)
    )
    await asyncio.sleep(0.3)
    assert not adding.done()
    await index(world.embedder, world.vectors, world.catalog, red, "red.png")
    await index(world.embedder, world.vectors, world.catalog, blue, "blue.png")
    record = world.catalog.records[image_id_of(blue)]
    world.catalog.records[image_id_of(blue)] = record.model_copy(update={"state": ImageState.FAILED, "reason": "corrupt"})
    ended = await adding
    assert [(file.state, file.reason) for file in ended] == [(ImageState.INDEXED, None), (ImageState.FAILED, "corrupt")]
    assert (told[-1].indexed, told[-1].failed, told[-1].sent) == (1, 1, 2)


async def test_waiting_ends_with_its_time_and_says_what_has_not_ended(call: Caller, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(picture("red"))
    (added,) = await call("add", tmp_path / "red.png", wait=True, timeout_s=0.05)
    assert not added.ended
    assert replace(added, state=ImageState.INDEXED).ended


async def test_a_path_that_is_not_there_is_an_error_before_anything_is_sent(world: World, call: Caller, tmp_path: Path) -> None:
    (tmp_path / "good.png").write_bytes(picture("red"))
    with pytest.raises(FileNotFoundError):
        await call("add", [tmp_path / "good.png", tmp_path / "absent.png"])
    assert not list(world.images.iterdir())


async def test_state_file_thumbnail_and_regions_of_an_image(call: Caller, colours: dict[str, str]) -> None:
    red = colours["red"]
    assert (await call("image", red)).state is ImageState.INDEXED
    assert await call("file", red) == picture("red")
    assert Image.open(io.BytesIO(await call("thumbnail", red, size=128))).format == "WEBP"
    assert [segment.label for segment in (await call("segments", red)).segments] == ["half"]


async def test_a_deleted_image_is_not_found(call: Caller, colours: dict[str, str]) -> None:
    await call("delete", colours["red"])
    for operation in ("image", "delete"):
        with pytest.raises(NotFound):
            await call(operation, colours["red"])


async def test_writing_takes_the_key_from_the_argument_or_the_environment(
    make_world: MakeWorld, make_caller: MakeCaller, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str((await make_world(api_keys=("the-key",))).client.make_url("/"))
    monkeypatch.delenv("IMAGESEARCH_API_KEY", raising=False)
    with pytest.raises(Unauthorized) as refused:
        await make_caller(url)("upload", picture("red"))
    assert refused.value.status == 401
    assert await make_caller(url, api_key="the-key")("upload", picture("red"))
    monkeypatch.setenv("IMAGESEARCH_API_KEY", "the-key")
    assert await make_caller(url)("upload", picture("red"))


# --- operations


async def test_status_and_failures_are_told(world: World, call: Caller, colours: dict[str, str]) -> None:
    at = world.catalog.records[colours["red"]].noticed_at
    world.catalog.failed += [
        Failure(path="x.jpg", reason="truncated", failed_at=at),
        Failure(path="n.txt", reason="ignored", failed_at=at),
    ]
    status = await call("status")
    assert (status.images.indexed, status.spaces[0].model_name) == (3, "CLIP")
    assert [failure.path for failure in (await call("failures")).failures] == ["x.jpg"]
    assert (await call("failures", limit=1, offset=1, ignored=True)).failures[0].path == "n.txt"


async def test_a_service_whose_parts_are_away_is_unavailable(world: World, call: Caller) -> None:
    world.catalog.away = ServiceAway("the watcher does not answer", retry_after_s=7)
    with pytest.raises(Unavailable, match="the watcher does not answer") as away:
        await call("status")
    assert (away.value.status, away.value.retry_after_s) == (503, 7.0)


def _photos(parent: Path) -> Path:
    photos = parent / "photos"
    for name, content in {
        "a.png": picture("red"),
        "2019/b.png": picture("blue"),
        "2019/notes.txt": b"notes",
        ".hidden.png": picture("green"),
        ".thumbnails/c.png": picture("green"),
    }.items():
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(content)
    return photos


# --- export


async def test_ratings_are_exported_as_lines_of_json_and_as_judgements(call: Caller, colours: dict[str, str]) -> None:
    answer = await call("search", "red")
    await call("rate", answer.matches[0], 9)
    await call("rate", answer.matches[1], 2)
    records = [json.loads(line) for line in (await call("export")).splitlines()]
    assert [(record["image_id"], record["rating"]) for record in records] == [
        (answer.matches[0].image_id, 9),
        (answer.matches[1].image_id, 2),
    ]
    judged = [line.split() for line in (await call("export", "qrels")).decode().splitlines()]
    assert {line[2] for line in judged} == {answer.matches[0].image_id, answer.matches[1].image_id}
    assert b"red" in await call("export", "topics")
    assert await call("export", since=datetime.now(UTC) + timedelta(hours=1)) == b""


async def test_ratings_are_exported_to_who_has_the_key(make_world: MakeWorld, make_caller: MakeCaller) -> None:
    url = str((await make_world(api_keys=("the-key",))).client.make_url("/"))
    with pytest.raises(Unauthorized):
        await make_caller(url)("export")
    assert await make_caller(url, api_key="the-key")("export") == b""
