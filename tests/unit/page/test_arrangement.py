"""How results are laid out: grouped, varied, page by page, and why each was found."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.fakes import picture
from tests.unit.page.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_near_duplicates_stand_as_one_tile_that_opens_them(site: Site) -> None:
    for mark in range(3):
        await site.add(picture("red", mark=mark), f"red-{mark}.png")
    page = await site.open("/?q=red")
    await expect(page.locator(".tile .open")).to_have_count(3)
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_label("Group near-duplicates").check()
    await expect(page.locator(".tile .open")).to_have_count(1)
    assert page.url.endswith("/?q=red&grouped=1")
    shown = await page.locator(".tile .name").inner_text()
    await page.get_by_role("button", name=f"2 near-duplicates of {shown}").click()
    heading = page.locator("#viewer-name")
    seen = {await heading.inner_text()}
    for _ in range(2):
        await page.keyboard.press("ArrowRight")
        seen.add(await heading.inner_text())
    assert seen == {"red-0.png", "red-1.png", "red-2.png"}
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Remove: near-duplicates grouped").click()
    await expect(page.locator(".tile .open")).to_have_count(3)


async def test_varied_results_show_something_else_sooner(site: Site) -> None:
    for mark in range(3):
        await site.add(picture("red", mark=mark), f"red-{mark}.png")
    for colour in ("blue", "green"):
        await site.add(picture(colour), f"{colour}.png")
    page = await site.open("/?q=red+red+red+blue")
    await expect(page.locator(".tile .name").nth(3)).to_have_text("blue.png")
    await page.get_by_role("button", name="Refine").click()
    await page.get_by_label("Varied").check()
    await expect(page.locator(".tile .name").nth(1)).to_have_text("blue.png")
    assert page.url.endswith("&varied=1")
    await page.goto(page.url)
    await expect(page.get_by_role("button", name="Remove: varied")).to_be_visible()
    await expect(page.locator(".tile .name").nth(1)).to_have_text("blue.png")


async def test_show_more_goes_on_behind_the_last_match_though_pictures_arrive_meanwhile(site: Site) -> None:
    for mark in range(30):
        await site.add(picture("red", mark=mark), f"{mark}.png")
    page = await site.open("/?q=red")
    await expect(page.locator(".tile .open")).to_have_count(24)
    for mark in range(30, 40):
        await site.add(picture("red", mark=mark), f"{mark}.png")
    await page.get_by_role("button", name="Show more").click()
    await expect(page.locator(".tile .open").nth(24)).to_be_focused()
    await expect(page.get_by_role("button", name="Show more")).to_have_count(0)
    names = await page.locator(".tile .name").all_inner_texts()
    assert len(names) == len(set(names))
    assert {f"{mark}.png" for mark in range(30)} <= set(names)


async def test_why_tells_which_parts_of_the_question_made_the_score(site: Site) -> None:
    red = await site.add(picture("red"), "red.png")
    await site.add(picture("red", mark=2), "other.png")
    await site.add(picture("blue"), "blue.png")
    page = await site.open(f"/?q=red&without=blue&like={red}&scope=both")
    await page.get_by_role("button", name="other.png, ").first.click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Why?").click()
    for part in ("Words “red”", "More like", "Without “blue”"):
        await expect(dialog.get_by_role("row", name=part)).to_be_visible()
    await expect(dialog.get_by_text("Whole picture")).to_be_visible()
    await expect(dialog.locator(".why")).to_contain_text("clip-fake-1")
    await page.keyboard.press("ArrowRight")
    await expect(dialog.locator("#viewer-name")).to_have_text("blue.png")
    await expect(dialog.get_by_role("row", name="Words “red”")).to_be_visible()
