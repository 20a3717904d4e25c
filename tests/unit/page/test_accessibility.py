"""axe finds nothing in any state of the page, by day and by night, on a desk and in a hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _empty(site: Site, page: Page) -> None:
    await expect(page.get_by_label("Describe the picture you look for")).to_be_visible()


async def _results(site: Site, page: Page) -> None:
    await page.get_by_label("Describe the picture you look for").fill("something blue")
    await page.keyboard.press("Enter")
    await expect(page.locator(".tile .open")).to_have_count(2)


async def _opened(site: Site, page: Page) -> None:
    await _results(site, page)
    await page.locator(".tile .open").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()


async def _failures(site: Site, page: Page) -> None:
    await page.get_by_role("button", name="1 not indexed").click()
    await expect(page.get_by_role("dialog").get_by_role("row").nth(1)).to_be_visible()


async def _refined(site: Site, page: Page) -> None:
    await _results(site, page)
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_role("combobox", name="Folder").fill("nowhere")
    await page.get_by_label("North").fill("42")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Remove: in nowhere")).to_be_visible()
    await expect(page.get_by_text("A place needs all four sides.")).to_be_visible()


async def _cutting(site: Site, page: Page) -> None:
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red", size=(400, 300))))
    await page.get_by_role("button", name="Query picture query.png").click()
    await expect(page.get_by_role("button", name="Search with this part")).to_be_visible()


async def _bent(site: Site, page: Page) -> None:
    """Several query pictures, an example more and one less, grouped."""
    await _results(site, page)
    files = [query(picture(colour, mark=9), f"{colour}-query.png") for colour in ("red", "blue")]
    await page.get_by_label("Picture to search with").set_input_files(files)
    red = await site.add(picture("red", mark=5), "more.png")
    blue = await site.add(picture("blue", mark=5), "less.png")
    await page.goto(f"{page.url.split('?')[0]}?q=red&like={red}&unlike={blue}&grouped=1&varied=1")
    await page.locator(".tile").first.hover()
    await expect(page.get_by_role("button", name="Remove: less like less.png")).to_be_visible()
    await page.get_by_label("Picture to search with").set_input_files(files)
    await expect(page.get_by_role("button", name="Remove the query picture blue-query.png")).to_be_visible()
    await expect(page.locator(".tile .open").first).to_be_visible()


async def _explained(site: Site, page: Page) -> None:
    await _opened(site, page)
    await page.get_by_text("Why?").click()
    await expect(page.get_by_role("row", name="Words")).to_be_visible()


async def _compared(site: Site, page: Page) -> None:
    asked = await site.add(picture("red", mark=9), "asked.png")
    await page.goto(f"{page.url.split('?')[0]}?of={asked}&model=clip-fake-1&against=resnet-fake-1")
    await page.get_by_role("region", name="ResNet").get_by_role("button", name="red.png").hover()
    await expect(page.locator("li.lit")).to_have_count(2)


async def _failed(site: Site, page: Page) -> None:
    await page.goto(f"{page.url.split('?')[0]}?q=red&like={'0' * 64}")
    await expect(page.get_by_role("heading", name="That did not work")).to_be_visible()


STATES: dict[str, Callable[[Site, Page], Awaitable[None]]] = {
    "empty": _empty,
    "results": _results,
    "opened": _opened,
    "failures": _failures,
    "refined": _refined,
    "cutting": _cutting,
    "bent": _bent,
    "explained": _explained,
    "compared": _compared,
    "failed": _failed,
}


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", STATES)
async def test_axe_finds_nothing(site: Site, state: str, scheme: str, width: int) -> None:
    for colour in ("red", "blue"):
        image_id = await site.add(picture(colour), f"{colour}.png")
    if state == "failures":
        site.fail(image_id, "blue.png")
    page = await site.open()
    await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    await page.set_viewport_size({"width": width, "height": 800})
    await STATES[state](site, page)
    await expect(page.locator("[aria-busy=true]")).to_have_count(0)  # until then what is old is shown pale

    found = await Axe().run(page)

    assert found.response["violations"] == [], found.generate_report()
    assert found.response["passes"]


async def test_a_picture_is_called_as_its_file_is_though_its_name_may_break_over_lines(site: Site) -> None:
    await site.add(picture("red"), "half-year.2024.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    chromium = await page.context.new_cdp_session(page)
    nodes = (await chromium.send("Accessibility.getFullAXTree"))["nodes"]
    named = {(node["role"]["value"], node["name"]["value"]) for node in nodes if "name" in node}
    assert {(role, "half-year.2024.png") for role in ("dialog", "heading")} <= named
