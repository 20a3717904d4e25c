"""By keyboard alone: the focus is never lost, and no key does two things at once."""

from __future__ import annotations

import asyncio
import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _opened(site: Site) -> Page:
    for mark in range(3):
        await site.add(picture("red", mark=mark), f"red-{mark}.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").first.click()
    await expect(page.get_by_role("dialog")).to_be_visible()
    return page


async def test_the_arrow_keys_go_on_leafing_after_a_rating(site: Site) -> None:
    page = await _opened(site)
    dialog = page.get_by_role("dialog")
    first = await page.locator("#viewer-name").inner_text()
    await dialog.get_by_role("button", name="Rate 7 of 10").press("Enter")
    rated = dialog.get_by_text("Rated 7 of 10. Thank you.")
    await expect(rated).to_be_focused()
    await page.keyboard.press("ArrowRight")
    await expect(page.locator("#viewer-name")).not_to_have_text(first)


async def test_each_step_through_the_matches_is_told_once_to_those_who_do_not_see_it(site: Site) -> None:
    page = await _opened(site)
    told = page.get_by_role("dialog").get_by_role("status")
    await expect(told).to_have_text("1 of 3, red-2.png, score 0.983")
    await told.evaluate("""told => {
        window.steps = [];
        new MutationObserver(() => window.steps.push(told.textContent)).observe(told, { childList: true, characterData: true, subtree: true });
    }""")
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):  # the third finds no further one
        await page.keyboard.press(key)
    await expect(told).to_have_text(re.compile("^2 of 3, "))
    assert [step[:6] for step in await page.evaluate("window.steps")] == ["2 of 3", "3 of 3", "2 of 3"]


async def test_what_is_said_while_a_match_is_looked_at_can_be_heard(site: Site) -> None:
    """What stands beside an open dialog is inert: a screen reader does not know of it."""
    page = await _opened(site)
    await page.context.set_offline(True)
    await page.get_by_role("dialog").get_by_role("button", name="Rate 7 of 10").press("Enter")
    told = page.get_by_role("dialog").get_by_role("status")
    await expect(told).to_have_text("Not saved: The server does not answer. Is it running?")


async def test_a_rating_that_was_not_saved_leaves_the_focus_at_its_button(site: Site) -> None:
    page = await _opened(site)
    await page.context.set_offline(True)
    await page.get_by_role("dialog").get_by_role("button", name="Rate 7 of 10").press("Enter")
    await expect(page.get_by_text("Not saved: The server does not answer.").last).to_be_visible()
    await expect(page.get_by_role("dialog").get_by_role("button", name="Rate 7 of 10")).to_be_focused()


@pytest.mark.parametrize("key", ["Alt+ArrowLeft", "Meta+ArrowRight", "Control+ArrowRight"])
async def test_a_key_of_the_browser_does_not_leaf(site: Site, key: str) -> None:
    page = await _opened(site)
    await page.keyboard.press("ArrowRight")
    heading = page.locator("#viewer-name")
    second = await heading.inner_text()
    await page.evaluate("addEventListener('keydown', (event) => event.preventDefault())")  # the browser itself does nothing
    await page.keyboard.press(key)
    await expect(heading).to_have_text(second)


async def test_going_back_closes_what_stands_over_the_results(site: Site) -> None:
    await site.add(picture("blue"), "blue.png")
    page = await _opened(site)
    await page.keyboard.press("Escape")
    await page.get_by_label("Describe the picture you look for").fill("blue")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="“blue”")).to_be_visible()
    await page.locator(".tile .open").first.click()
    await page.get_by_role("button", name="Search with a part").click()
    await page.go_back()
    await expect(page.get_by_role("heading", name="“red”")).to_be_visible()
    await expect(page.locator("dialog[open]")).to_have_count(0)


async def test_skipping_to_the_results_keeps_the_query_pictures(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red", mark=9)))
    await expect(page.locator(".tile .open")).to_have_count(1)
    await page.get_by_role("link", name="Skip to the results").press("Enter")
    await expect(page.get_by_role("region", name="Results")).to_be_focused()
    await page.wait_for_timeout(300)
    await expect(page.get_by_role("img", name="Query picture query.png")).to_be_visible()
    await expect(page.locator(".tile .open")).to_have_count(1)


async def test_show_more_takes_no_focus_from_who_writes_meanwhile(site: Site) -> None:
    for mark in range(30):
        await site.add(picture("red", mark=mark), f"{mark}.png")
    page = await site.open("/?q=red")
    await expect(page.locator(".tile .open")).to_have_count(24)
    go = asyncio.Event()

    async def held_back(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route("**/search-image", held_back)
    await page.get_by_role("button", name="Show more").click()
    field = page.get_by_label("Describe the picture you look for")
    await field.fill("blue")
    go.set()
    await expect(page.locator(".tile .open")).to_have_count(30)
    await expect(field).to_be_focused()


async def test_more_that_did_not_come_leaves_the_focus_at_its_button(site: Site) -> None:
    for mark in range(30):
        await site.add(picture("red", mark=mark), f"{mark}.png")
    page = await site.open("/?q=red")
    go = asyncio.Event()

    async def broken_off(route: Route) -> None:
        await go.wait()
        await route.abort()

    await page.route("**/search-image", broken_off)
    await page.get_by_role("button", name="Show more").press("Enter")
    await expect(page.locator("body")).to_be_focused()  # a button that is disabled cannot keep it
    go.set()
    await expect(page.get_by_role("button", name="Try again")).to_be_focused()


async def test_the_focus_returns_to_the_bar_that_changed_while_its_list_was_open(site: Site) -> None:
    site.fail(await site.add(picture("red"), "half.png"), "half.png")
    page = await site.open()
    button = page.get_by_role("button", name="1 not indexed")
    await button.press("Enter")
    await expect(page.get_by_role("dialog").get_by_role("row").nth(1)).to_be_visible()
    await site.add(picture("red", mark=2), "whole.png")
    await expect(page.locator("#ingestion")).to_contain_text("1 picture")
    await page.keyboard.press("Escape")
    await expect(button).to_be_focused()


async def test_hiding_the_uploads_leaves_the_focus_where_they_began(site: Site) -> None:
    page = await site.open()
    await page.get_by_label("Pictures to add to the folder").set_input_files(query(picture("yellow"), "new.png"))
    await page.get_by_role("button", name="Hide this list").press("Enter")
    await expect(page.get_by_role("button", name="Add pictures")).to_be_focused()
