"""Servers that answer late, with garbage or not at all, and files that cannot be read: the page tells what is so, and goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import Page, Route, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")

PICK = "Picture to search with"
ADD = "Pictures to add to the folder"


async def test_an_answer_that_is_none_of_ours_is_told_in_words(site: Site) -> None:
    page = await site.open()
    await page.route("**/search-image", lambda route: route.fulfill(status=200, body="<html>Sign in to the guest network</html>"))
    await page.get_by_label("Describe the picture you look for").fill("red")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_contain_text("The server answered 200, but with nothing that this page can read.")


async def test_an_upload_that_is_answered_with_garbage_holds_no_other_up(site: Site) -> None:
    page = await site.open()
    await page.route("**/api/v1/images", lambda route: route.fulfill(status=200, body="<html>Sign in</html>"))
    await page.get_by_label(ADD).set_input_files([query(picture("red", mark=mark), f"{mark}.png") for mark in range(4)])
    await expect(page.locator("#uploads li.failed")).to_have_count(4)
    assert site.trouble == []


@pytest.mark.parametrize("label", [PICK, ADD])
async def test_a_file_that_is_gone_is_not_taken_for_a_server_that_is_away(site: Site, tmp_path: Path, label: str) -> None:
    chosen = [tmp_path / f"{number}.png" for number in range(3)]
    page = await site.open()
    go = asyncio.Event()

    async def held_back(route: Route) -> None:
        await go.wait()
        await route.continue_()

    for path in chosen:
        path.write_bytes(picture("red"))
    if label == PICK:
        await page.get_by_label(label).set_input_files(chosen[2])
        await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
        chosen[2].unlink()
        await page.get_by_role("button", name="Search", exact=True).click()
    else:
        await page.route("**/api/v1/images", held_back)
        await page.get_by_label(label).set_input_files(chosen)
        await expect(page.locator("#uploads li")).to_have_count(3)
        chosen[2].unlink()
        go.set()
    await expect(page.get_by_text("2.png cannot be read: it is a folder, or was changed or taken away.").first).to_be_visible()


@pytest.mark.parametrize("status", [429, 503, 507])
async def test_uploads_wait_as_long_as_the_server_wants_and_none_is_given_up(site: Site, status: int) -> None:
    page = await site.open()
    sent: list[int] = []

    async def refuse_two(route: Route) -> None:
        sent.append(status)
        told = {"detail": "not now", "status": status}
        await (route.fulfill(status=status, headers={"Retry-After": "1"}, json=told) if len(sent) <= 2 else route.continue_())

    await page.route("**/api/v1/images", refuse_two)
    await page.get_by_label(ADD).set_input_files([query(picture("red", mark=mark), f"{mark}.png") for mark in range(6)])
    await expect(page.locator("#uploads li.pending")).to_have_count(6)
    assert len(sent) == 8


async def test_uploads_go_on_when_a_server_that_was_away_is_back(site: Site) -> None:
    page = await site.open()
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.context.set_offline(True)
    await page.get_by_label(ADD).set_input_files([query(picture("red", mark=mark), f"{mark}.png") for mark in range(6)])
    await expect(page.locator("#uploads li", has_text="The server does not answer.").first).to_be_visible()
    await page.context.set_offline(False)
    await expect(page.locator("#uploads li.pending")).to_have_count(6)
    assert len(list(site.images.iterdir())) == 6


async def test_an_upload_that_breaks_off_again_and_again_is_given_up_alone(site: Site) -> None:
    page = await site.open()
    await page.clock.install()

    async def refuse_one(route: Route) -> None:
        await (route.abort() if b"1.png" in (route.request.post_data_buffer or b"") else route.continue_())

    await page.route("**/api/v1/images", refuse_one)
    await page.get_by_label(ADD).set_input_files([query(picture("red", mark=mark), f"{mark}.png") for mark in range(3)])
    for _ in range(6):
        await page.clock.run_for(5_000)
        await page.wait_for_timeout(200)
    await expect(page.locator("#uploads li.failed")).to_contain_text("1.png")
    await expect(page.locator("#uploads li.pending")).to_have_count(2)


async def test_a_page_that_nobody_sees_follows_nothing_though_it_uploads(site: Site) -> None:
    page = await site.open()
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.clock.install()
    await page.evaluate("""() => {
        Object.defineProperty(document, "hidden", { value: true });
        document.dispatchEvent(new Event("visibilitychange"));
    }""")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/status") else None)
    await page.get_by_label(ADD).set_input_files(query(picture("red"), "red.png"))
    await expect(page.locator("#uploads li.pending")).to_have_count(1)
    await page.clock.run_for(10_000)
    assert asked == []
    assert site.trouble == []


async def test_a_name_that_could_not_be_asked_for_is_no_picture_that_is_gone(site: Site) -> None:
    red = await site.add(picture("red"), "red.png")
    page = await site.open()
    address = page.url
    await page.route(f"**/images/{red}", lambda route: route.abort())
    await page.goto(f"{address}?q=red&like={red}")
    chip = page.get_by_label("In force").get_by_role("button")
    await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    await expect(chip).to_have_text("more like")
    await page.unroute(f"**/images/{red}")
    await page.get_by_role("button", name="Search", exact=True).click()
    await expect(chip).to_have_text("more like red.png")


async def test_a_list_of_failures_that_is_opened_twice_tells_each_once(site: Site) -> None:
    site.fail(await site.add(picture("red"), "half.png"), "half.png")
    page = await site.open()
    go = asyncio.Event()

    async def held_back(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route("**/failures?*", held_back)
    for _ in range(2):
        await page.get_by_role("button", name="1 not indexed").click()
        await page.keyboard.press("Escape")
    await page.get_by_role("button", name="1 not indexed").click()
    go.set()
    rows = page.get_by_role("dialog").locator("tbody tr")
    await expect(rows).to_have_count(1)
    await page.wait_for_timeout(300)
    await expect(rows).to_have_count(1)


async def test_near_duplicates_that_come_late_do_not_take_the_place_of_what_was_opened_meanwhile(site: Site) -> None:
    for mark in range(2):
        await site.add(picture("red", mark=mark), f"red-{mark}.png")
    await site.add(picture("blue"), "blue.png")
    page: Page = await site.open("/?q=red&grouped=1")
    go = asyncio.Event()

    async def held_back(route: Route) -> None:
        await go.wait()
        await route.continue_()

    await page.route("**/images/*", held_back)
    await page.get_by_role("button", name="1 near-duplicate of").click()
    await page.get_by_role("button", name="blue.png, score").click()
    heading = page.locator("#viewer-name")
    await expect(heading).to_have_text("blue.png")
    go.set()
    await page.wait_for_timeout(500)
    await expect(heading).to_have_text("blue.png")


async def test_more_that_another_search_overtakes_is_no_failure(site: Site) -> None:
    for mark in range(30):
        await site.add(picture("red", mark=mark), f"{mark}.png")
    page = await site.open("/?q=red")
    await expect(page.locator(".tile")).to_have_count(24)
    asked, go = asyncio.Event(), asyncio.Event()

    async def held_back(route: Route) -> None:
        asked.set()
        await go.wait()
        await route.continue_()

    await page.route("**/search-image", held_back)
    await page.get_by_role("button", name="Show more").click()
    await asked.wait()
    asked.clear()
    await page.get_by_label("Describe the picture you look for").fill("red again")
    await page.keyboard.press("Enter")
    await asked.wait()
    await expect(page.locator(".foot").first).to_have_text("Loading")
    go.set()
    await expect(page.get_by_role("heading", name="“red again”")).to_be_visible()
    await expect(page.locator(".tile")).to_have_count(24)
