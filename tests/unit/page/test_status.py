"""What the page tells of the folder: as the stream of events says it, and by asking where there is none."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from core.schemas import ModelChange, ModelsCourse
from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


def asked_of(page: Page, path: str) -> list[str]:
    """The addresses that end so, as the page asks for them from now on."""
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url) if request.url.endswith(path) else None)
    return addresses


async def test_the_bar_follows_the_stream_and_asks_nothing(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    async with page.expect_response("**/api/v1/events") as events:
        await page.reload()
    assert (await events.value).headers["content-type"] == "text/event-stream"
    await expect(page.locator("#ingestion")).to_contain_text("1 picture")
    asked = asked_of(page, "/status")
    for count in (2, 3):
        await site.add(picture("red", mark=count), f"{count}.png")
        await expect(page.locator("#ingestion")).to_contain_text(f"{count} pictures")
    assert asked == []


async def test_a_page_that_is_refused_a_stream_asks_until_it_gets_one(site: Site) -> None:
    first = await site.open(max_event_streams=1)
    await expect(first.locator("#ingestion .state")).to_be_visible()
    page = await site.browser.new_page()
    await page.clock.install()
    async with page.expect_response("**/api/v1/events") as events:
        await page.goto(first.url)
    assert (await events.value).status == 503
    await expect(page.locator("#ingestion")).to_contain_text("0 pictures")
    await site.add(picture("red"), "red.png")
    await page.clock.run_for(10_000)
    await expect(page.locator("#ingestion")).to_contain_text("1 picture")

    await first.close()
    async with page.expect_response(lambda answer: answer.url.endswith("/events") and answer.status == 200):
        for _ in range(3):
            await page.clock.run_for(10_000)
    asked = asked_of(page, "/status")
    await site.add(picture("red", mark=2), "2.png")
    await expect(page.locator("#ingestion")).to_contain_text("2 pictures")
    assert asked == []


async def test_many_uploads_are_followed_though_they_finish_out_of_turn(site: Site) -> None:
    names = [f"{mark}.png" for mark in range(12)]
    page = await site.open()
    files = [query(picture("red", mark=mark), name) for mark, name in enumerate(names)]
    await page.get_by_label("Pictures to add to the folder").set_input_files(files)
    await expect(page.locator("#uploads li.pending")).to_have_count(12)
    for mark in reversed(range(12)):
        await site.add(picture("red", mark=mark), names[mark])
    await expect(page.get_by_role("heading", name="12 of 12 pictures added")).to_be_visible()


async def test_a_change_of_models_is_told_while_everything_can_be_found(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    change = ModelChange(profile="clip", answering="starter", done=1200, total=5000, stopped=False)
    site.catalog.course = ModelsCourse(searched=None, profile="starter", change=change)
    bar = page.locator("#ingestion")
    await expect(bar.locator(".state")).to_have_text("Re-indexing for clip: 1,200 of 5,000")
    await expect(bar.get_by_role("progressbar")).to_have_attribute("value", "1200")
    site.catalog.course = ModelsCourse(searched=None, profile="starter", change=change.model_copy(update={"stopped": True}))
    await expect(bar.locator(".state")).to_have_text("Stopped re-indexing for clip: 1,200 of 5,000")
    await expect(bar.get_by_role("progressbar")).to_have_count(0)


async def test_the_keyboard_stays_where_it_is_while_the_bar_changes(site: Site) -> None:
    site.fail(await site.add(picture("red"), "half.png"), "half.png")
    page = await site.open()
    button = page.get_by_role("button", name="1 not indexed")
    await button.focus()
    await site.add(picture("red", mark=2), "whole.png")
    await expect(page.locator("#ingestion")).to_contain_text("1 picture")
    await expect(button).to_be_focused()
