"""With a mouse, a finger or a pen: what is drawn is what is searched with, and a dialog closes by a press beside it alone."""

from __future__ import annotations

import pytest
from playwright.async_api import FloatRect, Locator, Page, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def box_of(locator: Locator) -> FloatRect:
    box = await locator.bounding_box()
    assert box is not None
    return box


async def _cutting(site: Site) -> Page:
    page = await site.open()
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red", size=(400, 300))))
    await page.get_by_role("button", name="Query picture query.png").click()
    await expect(page.locator(".cutting:not([aria-busy])")).to_be_visible()
    return page


async def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    await page.mouse.move(*start)
    await page.mouse.down()
    await page.mouse.move(*end, steps=4)
    await page.mouse.up()


async def test_text_can_be_marked_across_the_viewer_without_closing_it(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").click()
    path, stage = await box_of(page.locator("dd").nth(1)), await box_of(page.locator(".stage"))
    await drag(page, (path["x"] + 5, path["y"] + 8), (stage["x"] + 20, stage["y"] + 20))
    await expect(page.get_by_role("dialog")).to_be_visible()


async def test_a_slider_drawn_beyond_the_dialog_keeps_it_open(site: Site) -> None:
    page = await _cutting(site)
    slider = await box_of(page.get_by_role("slider", name="left"))
    await drag(page, (slider["x"] + slider["width"] / 4, slider["y"] + slider["height"] / 2), (5, slider["y"] + 5))
    await expect(page.get_by_role("dialog")).to_be_visible()
    await expect(page.get_by_role("slider", name="left")).to_have_value("0")


async def test_a_press_between_the_controls_keeps_the_dialog_open_and_one_beside_it_closes_it(site: Site) -> None:
    page = await _cutting(site)
    button = await box_of(page.get_by_role("button", name="Search with this part"))
    await page.mouse.click(button["x"] + 20, button["y"] - 5)
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.mouse.click(5, 5)
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_box_ends_where_the_pointer_is_let_go_outside(site: Site) -> None:
    page = await _cutting(site)
    stage = await box_of(page.locator(".cutting"))
    await drag(page, (stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2), (5, 5))
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.mouse.move(stage["x"] + 0.9 * stage["width"], stage["y"] + 0.9 * stage["height"])
    await expect(page.get_by_role("slider", name="left")).to_have_value("0")
    await expect(page.get_by_role("slider", name="right")).to_have_value("50")


async def _sides(page: Page) -> list[str]:
    return [await page.get_by_role("slider", name=side).input_value() for side in ("left", "right", "top", "bottom")]


async def test_a_finger_draws_a_box_and_a_second_one_does_not_pull_at_it(site: Site) -> None:
    page = await _cutting(site)
    stage = await box_of(page.locator(".cutting"))

    def at(x: float, y: float, finger: int) -> dict[str, float]:
        return {"x": stage["x"] + x * stage["width"], "y": stage["y"] + y * stage["height"], "id": finger}

    touch = await page.context.new_cdp_session(page)
    await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at(0.1, 0.1, 0)]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at(0.4, 0.4, 0)]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [at(0.4, 0.4, 0), at(0.9, 0.9, 1)]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [at(0.5, 0.5, 0), at(0.8, 0.8, 1)]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert await _sides(page) == ["10", "50", "10", "50"]


async def test_a_box_is_drawn_with_the_first_button_alone(site: Site) -> None:
    page = await _cutting(site)
    stage = await box_of(page.locator(".cutting"))
    await page.mouse.move(stage["x"] + 0.5 * stage["width"], stage["y"] + 0.5 * stage["height"])
    await page.mouse.down(button="right")
    await page.mouse.move(stage["x"] + 0.9 * stage["width"], stage["y"] + 0.9 * stage["height"])
    await page.mouse.up(button="right")
    assert await _sides(page) == ["25", "75", "25", "75"]


async def test_a_touch_that_is_taken_away_ends_its_box(site: Site) -> None:
    page = await _cutting(site)
    stage = await box_of(page.locator(".cutting"))
    touch = await page.context.new_cdp_session(page)
    point = {"x": stage["x"] + 0.1 * stage["width"], "y": stage["y"] + 0.1 * stage["height"]}
    await touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    point = {"x": stage["x"] + 0.6 * stage["width"], "y": stage["y"] + 0.6 * stage["height"]}
    await touch.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
    await touch.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})
    await page.mouse.move(stage["x"] + 0.9 * stage["width"], stage["y"] + 0.9 * stage["height"])
    assert await _sides(page) == ["10", "60", "10", "60"]


async def test_a_dialog_that_closes_while_a_box_is_drawn_begins_anew(site: Site) -> None:
    page = await _cutting(site)
    stage = await box_of(page.locator(".cutting"))
    await page.mouse.move(stage["x"] + 0.1 * stage["width"], stage["y"] + 0.1 * stage["height"])
    await page.mouse.down()
    await page.keyboard.press("Escape")
    await page.mouse.up()
    await page.get_by_role("button", name="Query picture query.png").click()
    await expect(page.locator(".cutting:not([aria-busy])")).to_be_visible()
    await page.mouse.move(stage["x"] + 0.9 * stage["width"], stage["y"] + 0.9 * stage["height"])
    assert await _sides(page) == ["25", "75", "25", "75"]


async def test_a_picture_pasted_while_a_part_of_another_is_chosen_is_not_cut_by_it(site: Site) -> None:
    page = await _cutting(site)
    await page.evaluate("""() => {
        const files = new DataTransfer();
        files.items.add(new File(["other"], "other.png", { type: "image/png" }));
        document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: files, bubbles: true, cancelable: true }));
    }""")
    await page.get_by_role("button", name="Search with this part").click()
    await expect(page.get_by_role("img", name="Query picture query.png")).to_be_visible()
    await expect(page.get_by_role("button", name="Remove: a part of your picture")).to_be_visible()
