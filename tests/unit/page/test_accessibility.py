"""axe finds nothing in any state of the page, by day and by night, on a desk and in a hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site

pytestmark = [pytest.mark.timeout(90), pytest.mark.asyncio(loop_scope="module")]


async def _empty(site: Site, page: Page) -> None:
    await expect(page.get_by_label("Describe the picture you look for")).to_be_visible()


async def _results(site: Site, page: Page) -> None:
    await page.get_by_label("Describe the picture you look for").fill("something blue")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("listitem")).to_have_count(2)


async def _opened(site: Site, page: Page) -> None:
    await _results(site, page)
    await page.get_by_role("listitem").first.get_by_role("button").click()
    await expect(page.get_by_role("dialog")).to_be_visible()


async def _failures(site: Site, page: Page) -> None:
    await page.get_by_role("button", name="1 not indexed").click()
    await expect(page.get_by_role("dialog").get_by_role("row").nth(1)).to_be_visible()


async def _filtered(site: Site, page: Page) -> None:
    await _results(site, page)
    await page.get_by_role("button", name="Filters").click()
    await page.get_by_role("combobox", name="Folder").fill("nowhere")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Remove the filter: in nowhere")).to_be_visible()


async def _cutting(site: Site, page: Page) -> None:
    query = {"name": "query.png", "mimeType": "image/png", "buffer": picture("red", size=(400, 300))}
    await page.get_by_label("Picture to search with").set_input_files(query)  # type: ignore[arg-type]
    await page.get_by_role("button", name="Query picture query.png").click()
    await expect(page.get_by_role("button", name="Search with this part")).to_be_visible()


STATES: dict[str, Callable[[Site, Page], Awaitable[None]]] = {
    "empty": _empty,
    "results": _results,
    "opened": _opened,
    "failures": _failures,
    "filtered": _filtered,
    "cutting": _cutting,
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

    found = await Axe().run(page)

    assert found.response["violations"] == [], found.generate_report()
    assert found.response["passes"]
