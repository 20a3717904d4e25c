"""The same question to two models, side by side."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from core.ports import Point
from tests.fakes import IMAGE_SPACE, READY, TEXT_SPACE, picture, word_vector
from tests.unit.page.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def two_minds(site: Site) -> str:
    """The second model takes blue for red and red for blue, and knows no white. Returns the address of a search by a red picture."""
    asked = await site.add(picture("red", mark=9), "asked.png")
    ids = {colour: await site.add(picture(colour), f"{colour}.png") for colour in ("red", "blue", "white")}
    held = site.vectors.stored[TEXT_SPACE.collection]
    for point in [point for point in held.values() if point.payload["image_id"] == ids["blue"]]:
        held[point.id] = Point(point.id, word_vector("red blue"), point.payload)
    held = site.vectors.stored[IMAGE_SPACE.collection]
    swapped = {ids["red"]: "blue", ids["blue"]: "red"}
    for point in list(held.values()):
        image_id = point.payload["image_id"]
        if image_id == ids["white"]:
            del held[point.id]
        elif image_id in swapped:
            held[point.id] = Point(point.id, word_vector(swapped[image_id]), point.payload)
    return f"/?of={asked}"


BOTH = "&model=clip-fake-1&against=resnet-fake-1"


async def test_two_models_stand_side_by_side_with_scores_and_moves_and_can_be_linked(site: Site) -> None:
    address = await two_minds(site)
    page = await site.open(address)
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_label("Compare with").select_option("ResNet")
    first, second = page.get_by_role("region", name="CLIP"), page.get_by_role("region", name="ResNet")
    await expect(first.get_by_role("button", name="red.png, score")).to_be_visible()
    await expect(page.get_by_text("2 pictures found by both CLIP and ResNet").first).to_be_visible()
    await expect(first.locator(".name")).to_have_text(["red.png", "blue.png", "white.png"])
    await expect(second.locator(".name")).to_have_text(["blue.png", "red.png"])
    await expect(second.locator(".change")).to_have_text(["↑1", "↓1"])
    await expect(second.get_by_role("button", name="1 place higher than with CLIP")).to_contain_text("blue.png")
    await expect(first.locator(".change")).to_have_text(["only here"])
    await expect(page.locator("#model")).to_have_text("Answered by CLIP and ResNet")
    assert page.url.endswith(BOTH)

    await page.goto(page.url)
    await expect(second.locator(".name")).to_have_text(["blue.png", "red.png"])
    await page.get_by_role("button", name="Remove: CLIP against ResNet").click()
    await expect(page.locator(".tile .open")).to_have_count(3)
    assert page.url.endswith(address)


async def test_the_lists_are_walked_by_keys_and_each_answer_is_rated_by_itself(site: Site) -> None:
    page = await site.open(await two_minds(site) + BOTH)
    second = page.get_by_role("region", name="ResNet")
    await second.get_by_role("button", name="blue.png").focus()
    await expect(page.get_by_role("region", name="CLIP").locator("li.lit .name")).to_have_text("blue.png")
    await page.keyboard.press("Enter")
    heading = page.locator("#viewer-name")
    await expect(heading).to_have_text("blue.png")
    await page.keyboard.press("ArrowRight")
    await expect(heading).to_have_text("red.png")
    await page.keyboard.press("Escape")
    await second.get_by_role("button", name="Rate 4 of 10").click()
    await expect(second.get_by_text("Rated 4 of 10. Thank you.")).to_be_visible()
    await expect(page.get_by_role("region", name="CLIP").get_by_role("button", name="Rate 4 of 10")).to_be_enabled()


async def test_on_a_phone_the_lists_stand_one_below_the_other(site: Site) -> None:
    page = await site.open(await two_minds(site) + BOTH)
    await page.set_viewport_size({"width": 390, "height": 800})
    await expect(page.get_by_role("region", name="CLIP").get_by_role("listitem")).to_have_count(3)
    boxes = [await page.get_by_role("region", name=name).bounding_box() for name in ("CLIP", "ResNet")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[1]["y"] >= boxes[0]["y"] + boxes[0]["height"]
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390


async def test_a_model_that_understands_no_words_says_so_in_the_comparison(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open(f"/?q=red{BOTH}")
    await expect(page.get_by_role("alert")).to_contain_text("ResNet")


async def test_one_model_alone_offers_no_choice(site: Site) -> None:
    site.embedder.models = READY.model_copy(update={"spaces": (TEXT_SPACE,)})
    page = await site.open()
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.get_by_role("button", name="Refine").click()
    await expect(page.get_by_label("Compare with")).to_be_hidden()
    await expect(page.get_by_label("Folder", exact=True)).to_be_visible()
