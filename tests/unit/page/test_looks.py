"""What is seen: in a small hand, and in the system's own colours."""

from __future__ import annotations

import pytest
from playwright.async_api import Locator, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")

MISSING = """field => {
    const style = getComputedStyle(field);
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = style.font;
    const room = field.clientWidth - parseFloat(style.paddingLeft) - parseFloat(style.paddingRight);
    return pen.measureText(field.placeholder).width - room;
}"""


async def ground(locator: Locator) -> str:
    return str(await locator.evaluate("one => getComputedStyle(one).backgroundColor"))


async def test_what_can_be_done_with_a_picture_lies_within_the_smallest_screen(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red")
    await page.set_viewport_size({"width": 320, "height": 640})
    await page.locator(".tile .open").click()
    buttons = page.locator(".actions .button")
    await expect(buttons).to_have_count(4)
    assert await buttons.evaluate_all("all => Math.max(...all.map((one) => one.getBoundingClientRect().right))") <= 320


async def test_no_word_of_the_explanation_is_broken_on_the_smallest_screen(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=a+pair+of+red+shoes")
    await page.set_viewport_size({"width": 320, "height": 640})
    await page.locator(".tile .open").click()
    await page.get_by_text("Why?").click()
    lines = "all => all.map((one) => { const text = new Range(); text.selectNodeContents(one); return text.getClientRects().length; })"
    assert await page.locator(".why thead th").evaluate_all(lines) == [1, 1, 1]
    assert await page.locator(".why table").evaluate("table => table.getBoundingClientRect().right") <= 320


async def test_the_ring_around_what_closes_a_list_is_seen_whole(site: Site) -> None:
    site.fail(await site.add(picture("red"), "half.png"), "half.png")
    page = await site.open()
    await page.get_by_role("button", name="1 not indexed").press("Enter")
    close = page.get_by_role("button", name="Close")
    await expect(close).to_be_focused()
    ring = await close.evaluate("one => one.getBoundingClientRect().bottom + 5")  # its width and offset
    assert await page.locator(".scroll").evaluate("one => one.getBoundingClientRect().top") >= ring


async def test_a_picture_that_cannot_be_shown_is_told_in_the_viewer_as_in_its_tile(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    for address in ("**/file", "**/thumbnail*"):
        await page.route(address, lambda route: route.abort())
    await page.get_by_label("Describe the picture you look for").fill("red")
    await page.keyboard.press("Enter")
    await page.locator(".tile .open:has(.broken)").click()
    told = "frame => getComputedStyle(frame, '::after').content"
    assert await page.locator(".tile .frame").evaluate(told) == '"No preview"'
    await expect(page.locator(".stage .frame.broken")).to_be_visible()
    assert await page.locator(".stage .frame").evaluate(told) == '"No preview"'


@pytest.mark.parametrize("width", [320, 390])
async def test_there_is_room_to_write_beside_a_query_picture(site: Site, width: int) -> None:
    page = await site.open()
    await page.set_viewport_size({"width": width, "height": 640})
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red")))
    await expect(page.get_by_role("img", name="Query picture query.png")).to_be_visible()
    box = await page.get_by_label("Describe the picture you look for").bounding_box()
    assert box is not None
    assert box["width"] >= 120


async def test_what_the_field_asks_for_is_read_whole_on_a_phone(site: Site) -> None:
    page = await site.open()
    await page.set_viewport_size({"width": 390, "height": 800})
    assert await page.get_by_label("Describe the picture you look for").evaluate(MISSING) <= 0


async def test_the_colours_of_the_system_tell_what_is_chosen_and_where_one_writes(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red&scope=segments")
    await page.emulate_media(forced_colors="active")
    assert await ground(page.locator(".choice input:checked + span")) != await ground(
        page.locator(".choice input:not(:checked) + span").first
    )
    bar = page.locator(".bar")
    await page.get_by_label("Describe the picture you look for").focus()
    await expect(bar).to_have_css("outline-style", "solid")
    await page.locator(".tile .open").first.click()
    chip = page.get_by_role("dialog").locator(".segments .chip")
    await expect(chip).to_have_attribute("aria-pressed", "true")
    chosen = await ground(chip)
    await chip.click()
    assert await ground(chip) != chosen
