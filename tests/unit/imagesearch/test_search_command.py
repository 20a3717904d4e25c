"""`imagesearch search` in all the ways to ask: examples, regions, pages, explanations, two models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import picture
from tests.unit.imagesearch.conftest import Stub
from tests.unit.imagesearch.test_command import Command, colours, command, quiet_service
from tests.unit.searchsvc.conftest import World
from tests.unit.searchsvc.test_asking import halves

__all__ = ["colours", "command", "quiet_service"]


@pytest.fixture
async def halved(world: World, colours: dict[str, str]) -> str:
    """An image whose only region, its left half, is red; the rest is black."""
    return await world.add(halves("red", "black"), "red-in-black.png")


def paths(ended: Any) -> list[str]:
    assert ended.code == 0, ended.err
    return [row[2] for row in ended.rows]


# --- ways to ask


async def test_examples_are_named_by_id_by_region_and_by_the_number_of_a_hit(
    command: Command, colours: dict[str, str], halved: str
) -> None:
    shown = paths(await command("search", "green"))
    by_number = await command("search", "green", "--like", shown.index("blue/blue.png") + 1, "--unlike", f"{halved}/0")
    assert set(paths(by_number)) == {"red/red.png", "green/green.png"}
    by_id = await command("search", "green", "--like", colours["blue"], "--unlike", f"{halved}/0")
    assert by_id.rows == by_number.rows
    assert paths(await command("search", "--like", halved + "/0"))[0] == "red/red.png"


async def test_a_hit_that_is_a_region_is_an_example_as_that_region(
    command: Command, world: World, colours: dict[str, str], halved: str
) -> None:
    shown = paths(await command("search", "red", "--scope", "segments"))
    ended = await command("search", "--like", shown.index("red-in-black.png") + 1, "--explain", "--json")
    assert ended.document["matches"][0]["explanation"]["terms"][0]["ref"] == f"{halved}/0"


async def test_a_number_means_the_service_that_showed_it(
    command: Command, colours: dict[str, str], monkeypatch: pytest.MonkeyPatch, stub: Stub, address: str
) -> None:
    await command("search", "red", "--url", address, "-k", 1)
    monkeypatch.setenv("IMAGESEARCH_URL", stub.url)
    assert (await command("search", "--like", "1")).code == 0
    assert (await command("search", "red", "-k", 1, "--url", address)).code == 0
    assert (await command("search", "--next")).code == 0
    assert not stub.asked


async def test_several_pictures_a_part_of_one_and_a_region_of_an_indexed_one(
    command: Command, colours: dict[str, str], halved: str, tmp_path: Path
) -> None:
    (tmp_path / "q.png").write_bytes(halves("green", "blue", size=(200, 100)))
    (tmp_path / "r.png").write_bytes(picture("red", mark=5))
    assert paths(await command("search", "--picture", tmp_path / "q.png", "--region", "0,0,100,100"))[0] == "green/green.png"
    assert paths(await command("search", "--picture", tmp_path / "q.png", "--region", "100.5,0,99,100"))[0] == "blue/blue.png"
    two = await command("search", "--picture", tmp_path / "q.png", "--picture", tmp_path / "r.png", "--explain", "--json")
    assert [term["of"] for term in two.document["matches"][0]["explanation"]["terms"]] == ["file", "file"]
    assert paths(await command("search", "--image-id", halved, "--segment", 0))[0] == "red/red.png"
    assert paths(await command("search", "--image-id", halved, "--region", "0,0,32,48"))[0] == "red/red.png"


async def test_near_duplicates_and_variety(command: Command, world: World, colours: dict[str, str]) -> None:
    await world.add(picture("green", image_format="BMP"), "copy.bmp")
    assert len((await command("search", "green")).rows) == 4
    assert len((await command("search", "green", "--collapse")).rows) == 3
    assert set(paths(await command("search", "green", "-k", 2))) == {"green/green.png", "copy.bmp"}
    assert set(paths(await command("search", "green", "-k", 2, "--diversity", "0.6"))) != {"green/green.png", "copy.bmp"}


@pytest.mark.parametrize(
    "arguments",
    [
        ("search", "--unlike", "0" * 64),
        ("search", "red", "--like", "holiday.jpg"),
        ("search", "red", "--like", "0" * 64 + "/x"),
        ("search", "red", "--like", "9"),
        ("search", "--image-id", "0" * 64, "--region", "1,2,3"),
        ("search", "--image-id", "0" * 64, "--region", "1,2,3,x"),
        ("search", "red", "--compare", "CLIP"),
        ("search", "red", "--compare", "CLIP", "CLIP", "--model", "CLIP"),
        ("search", "red", "--compare", "CLIP", "CLIP", "--offset", "1"),
        ("search", "red", "--compare", "CLIP", "CLIP", "--explain"),
        ("search", "--next"),
    ],
)
async def test_what_does_not_go_together_is_two_and_says_why(command: Command, arguments: tuple[str, ...]) -> None:
    ended = await command(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err
    assert "Traceback" not in ended.err


async def test_a_number_that_was_not_shown_is_two(command: Command, colours: dict[str, str]) -> None:
    await command("search", "red")
    ended = await command("search", "red", "--like", "4")
    assert (ended.code, "hits 1 to 3" in ended.err) == (2, True)


# --- explanations


async def test_the_terms_stand_below_each_hit_and_add_up_to_its_score(command: Command, colours: dict[str, str]) -> None:
    ended = await command("search", "red", "--unlike", colours["blue"], "--not", "yellow/green", "--explain")
    assert [row[0] for row in ended.rows] == ["1", "", "", "", "2", "", "", ""]
    hit, *terms = ended.rows[:4]
    assert [term[2:4] for term in terms] == [["text", "red"], ["negative_text", "yellow/green"], ["unlike", colours["blue"]]]
    assert sum(float(term[1]) for term in terms) == pytest.approx(float(hit[1]), abs=2e-4)
    for _, product, _, _, weight, similarity in terms:
        assert float(weight) * float(similarity) == pytest.approx(float(product), abs=2e-4)


# --- pages


async def test_next_shows_the_next_page_and_the_numbers_go_on(command: Command, colours: dict[str, str]) -> None:
    shown = (await command("search", "red", "-k", 1, "--folder", "red")).rows
    assert (await command("search", "--next")).code == 1, "the folder holds one picture"
    pages = [
        await command("search", "red", "-k", 1),
        await command("search", "--next"),
        await command("search", "--next", "-k", 5),
    ]
    assert [row[0] for page in pages for row in page.rows] == ["1", "2", "3"]
    assert len({row[2] for page in pages for row in page.rows}) == 3
    assert pages[0].rows == shown
    last = await command("search", "--next", "--json")
    assert (last.code, last.out) == (1, "")
    assert "nothing follows" in last.err


async def test_hits_of_every_page_are_rated_and_meant_by_their_numbers(command: Command, colours: dict[str, str]) -> None:
    first = await command("search", "red", "-k", 1)
    second = await command("search", "--next")
    assert [(await command("rate", number, "9")).code for number in ("1", "2", "3")] == [0, 0, 2]
    left = paths(await command("search", "red", "--like", 1, "--unlike", 2))
    assert set(left) == {"red/red.png", "green/green.png", "blue/blue.png"} - {*paths(first), *paths(second)}


async def test_next_goes_on_with_pictures_and_explanations_and_as_json(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "q.png").write_bytes(picture("red", mark=5))
    await command("search", "--picture", tmp_path / "q.png", "-k", 1, "--explain")
    (tmp_path / "q.png").unlink()
    ended = await command("search", "--next", "--json")
    assert ended.document["matches"][0]["explanation"]["terms"][0]["of"] == "file"
    assert [row[0] for row in (await command("search", "--next")).rows] == ["3", ""]


@pytest.mark.parametrize(
    "beside",
    [("green",), ("--explain",), ("--like", "1"), ("--model", "CLIP"), ("--compare", "CLIP", "CLIP"), ("--offset", "2")],
)
async def test_next_takes_nothing_of_a_new_question(command: Command, colours: dict[str, str], beside: tuple[str, ...]) -> None:
    await command("search", "red", "-k", 1)
    ended = await command("search", "--next", *beside)
    assert (ended.code, ended.out, "--next" in ended.err) == (2, "", True)


async def test_a_cursor_that_the_service_no_longer_takes_is_four(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    await command("search", "red", "-k", 1)
    (kept,) = (path for path in (tmp_path / "xdg").rglob("*") if path.is_file())
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "cursor": "AAAA"}))
    assert (await command("search", "--next")).code == 4


# --- two models


async def test_two_models_stand_side_by_side_with_ranks_and_scores(
    command: Command, colours: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "q.png").write_bytes(picture("red", mark=5))
    asked = ("search", "--picture", tmp_path / "q.png", "--compare", "CLIP", "resnet", "-k", 2)
    compared = (await command(*asked, "--json", "--explain")).document
    assert [answer["model_name"] for answer in compared["answers"]] == ["CLIP", "ResNet"]
    assert compared["answers"][0]["matches"][0]["explanation"]
    ended = await command(*asked)
    assert (ended.code, ended.err) == (0, "")
    assert [row[5] for row in ended.rows] == [image["image_id"] for image in compared["images"]]
    for row, image in zip(ended.rows, compared["images"], strict=True):
        expected = [
            cell
            for rank, score in zip(image["ranks"], image["scores"], strict=True)
            for cell in (("", "") if rank is None else (str(rank), f"{score:.4f}"))
        ]
        assert row[:4] == expected
        assert colours[row[4].partition("/")[0]] == image["image_id"]


async def test_a_comparison_that_finds_nothing_is_one_and_one_that_is_refused_four(
    command: Command, colours: dict[str, str]
) -> None:
    assert (await command("search", "red", "--compare", "CLIP", "CLIP", "--folder", "absent")).code == 1
    ended = await command("search", "red", "--compare", "CLIP", "ResNet")
    assert (ended.code, "ResNet" in ended.err) == (4, True)


async def test_a_comparison_leaves_the_last_search_remembered(command: Command, colours: dict[str, str]) -> None:
    await command("search", "red", "-k", 1)
    assert (await command("search", "blue", "--compare", "CLIP", "CLIP")).code == 0
    assert (await command("rate", "1", "9")).code == 0
    assert [row[0] for row in (await command("search", "--next")).rows] == ["2"]
