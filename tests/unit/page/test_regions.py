"""Searching with a part of a picture: a box on the query picture or on an indexed one, and a region that was found."""

from __future__ import annotations

import asyncio
import io
import re

import pytest
from PIL import Image
from playwright.async_api import FloatRect, Page, Route, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


def red_with_a_blue_corner() -> bytes:
    image = Image.open(io.BytesIO(picture("red", size=(400, 300))))
    image.paste(Image.open(io.BytesIO(picture("blue", size=(100, 75)))), (300, 225))
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


async def draw_over_the_corner(page: Page) -> None:
    await expect(page.locator(".cutting:not([aria-busy])")).to_be_visible()
    await drawn(page, await page.locator(".cutting").bounding_box())


async def drawn(page: Page, stage: FloatRect | None) -> None:
    assert stage is not None
    await page.mouse.move(stage["x"] + 0.76 * stage["width"], stage["y"] + 0.76 * stage["height"])
    await page.mouse.down()
    await page.mouse.move(stage["x"] + 0.99 * stage["width"], stage["y"] + 0.99 * stage["height"])
    await page.mouse.up()


async def test_a_part_of_the_query_picture_is_drawn_or_set_by_keys_and_searched_with(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    await site.add(picture("blue"), "blue.png")
    page = await site.open()
    first = page.locator(".tile .name").first
    await page.get_by_label("Picture to search with").set_input_files(query(red_with_a_blue_corner()))
    await expect(first).to_have_text("red.png")
    await page.get_by_role("button", name="Query picture query.png").click()
    await draw_over_the_corner(page)
    await expect(page.get_by_role("slider", name="left")).to_have_value("76")
    await page.get_by_role("button", name="Search with this part").click()
    await expect(first).to_have_text("blue.png")

    await page.get_by_role("button", name="Query picture query.png").click()
    await expect(page.get_by_role("slider", name="left")).to_have_value("76")
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Remove: a part of your picture").click()
    await expect(first).to_have_text("red.png")

    await page.get_by_role("button", name="Query picture query.png").click()
    for side, value in {"left": "80", "right": "100", "top": "100", "bottom": "80"}.items():  # upside down: turned back
        await page.get_by_role("slider", name=side).fill(value)
    await page.get_by_role("button", name="Search with this part").click()
    await expect(first).to_have_text("blue.png")


async def test_a_picture_without_regions_is_told_from_a_service_without_a_segmenter(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red")
    await page.route("**/segments", lambda route: route.fulfill(json={"segments": []}))
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.locator(".tile .open").click()
    await expect(page.get_by_text("No regions: no segmentation model is loaded")).to_be_visible()
    embedder = site.embedder.models.models[0]
    segmenter = embedder.model_copy(update={"role": "segmenter", "model_name": "YOLO"})
    site.embedder.models = site.embedder.models.model_copy(update={"models": (embedder, segmenter)})
    await page.reload()
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.locator(".tile .open").click()
    await expect(page.get_by_text("No regions were found in this picture")).to_be_visible()


async def test_regions_are_drawn_over_their_picture_and_can_be_searched_with_by_a_link(site: Site) -> None:
    green = await site.add(picture("green"), "green.png")
    await site.add(picture("green", mark=3), "twin.png")
    page = await site.open("/?q=green&scope=segments")
    tile = page.locator(".tile").filter(has_text="half").first
    await expect(tile.locator(".bbox")).to_have_css("border-top-style", "solid")
    assert await tile.locator(".bbox").evaluate("box => box.style.width") == "50%"
    await page.locator(".tile .open", has=page.locator(f'img[src*="{green}"]')).click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="half 75 %")).to_have_attribute("aria-pressed", "true")
    await dialog.get_by_role("button", name="Search with this region").click()
    await expect(page.get_by_role("heading", name="More like this")).to_be_visible()
    assert page.url.endswith(f"/?scope=segments&of={green}.0")

    await page.goto(page.url)
    await expect(page.locator(".tile .open")).to_have_count(1)
    await page.get_by_role("button", name="Remove: like a region of green.png").click()
    await expect(page.get_by_role("heading", name="Find your pictures")).to_be_visible()


async def test_a_box_on_an_indexed_picture_is_searched_with_and_can_be_linked(site: Site) -> None:
    held = await site.add(red_with_a_blue_corner(), "corner.png")
    await site.add(picture("red"), "red.png")
    await site.add(picture("blue"), "blue.png")
    page = await site.open("/?q=red&name=corner")
    await page.locator(".tile .open").click()
    await page.get_by_role("button", name="Search with a part").click()
    await draw_over_the_corner(page)
    await page.get_by_role("button", name="Search with this part").click()
    await expect(page.get_by_role("dialog")).to_have_count(0)
    await page.get_by_role("button", name="Remove: named corner").click()
    await expect(page.locator(".tile .name")).to_have_text(["blue.png", "red.png"])
    assert re.search(rf"/\?of={held}&region=304%2C228%2C92%2C69$", page.url), page.url

    await page.goto(page.url)
    await expect(page.locator(".tile .name").first).to_have_text("blue.png")
    await expect(page.get_by_role("button", name="Remove: like a part of corner.png")).to_be_visible()


async def test_a_box_is_begun_when_its_picture_is_there_and_the_picture_does_not_jump_when_it_comes(site: Site) -> None:
    held = await site.add(red_with_a_blue_corner(), "corner.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").click()
    shown = asyncio.Event()

    async def held_back(route: Route) -> None:
        await shown.wait()
        await route.continue_()

    await page.route(f"**/{held}/file**", held_back)
    await page.get_by_role("button", name="Search with a part").click()
    stage = page.locator(".cutting")
    before = await stage.bounding_box()
    await drawn(page, before)
    await expect(page.get_by_role("slider", name="left")).to_have_value("25")
    shown.set()
    await draw_over_the_corner(page)
    await expect(page.get_by_role("slider", name="left")).to_have_value("76")
    assert await stage.bounding_box() == before
