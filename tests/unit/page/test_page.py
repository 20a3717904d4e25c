"""The page in a real browser, over the real search service and ports in memory."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from playwright.async_api import expect

from core.errors import NoModel
from tests.fakes import image_id_of, picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_words_find_pictures_and_the_address_can_be_linked(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    await site.add(picture("blue"), "blue.png")
    page = await site.open()
    await page.get_by_label("Describe the picture you look for").fill("something blue")
    await page.keyboard.press("Enter")
    await expect(page.locator(".tile .open").first).to_have_accessible_name(
        "blue.png, score " + await page.locator(".tile .score").first.inner_text()
    )
    await expect(page.locator("#model")).to_have_text("Answered by CLIP")
    assert page.url.endswith("/?q=something+blue")

    linked = await site.browser.new_page()
    await linked.goto(page.url)
    await expect(linked.locator(".tile .open")).to_have_count(2)
    assert await linked.locator(".tile img").first.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") > 0


async def test_a_match_is_rated_once_with_its_own_token(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("heading", name="red.png")).to_be_visible()
    await dialog.get_by_role("button", name="Rate 8 of 10").click()
    await expect(dialog.get_by_text("Rated 8 of 10. Thank you.")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.locator(".tile .open").click()
    await expect(page.get_by_role("dialog").get_by_text("Rated 8 of 10. Thank you.")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Rate 3 of 10").click()
    await expect(page.get_by_label("Results").get_by_text("Rated 3 of 10. Thank you.")).to_be_visible()


async def test_the_day_of_a_picture_is_that_which_the_filters_find_it_by(site: Site) -> None:
    image_id = await site.add(picture("red"), "red.png")
    site.tell(image_id, taken_at=datetime(2024, 6, 1, 0, 30, tzinfo=UTC).timestamp())
    address = (await site.open("/?q=red&from=2024-06-01&to=2024-06-01")).url
    page = await site.browser.new_page(timezone_id="America/Los_Angeles", locale="en-GB")
    await page.goto(address)
    await page.locator(".tile .open").click()
    await expect(page.get_by_text("01/06/2024", exact=True)).to_be_visible()


async def test_a_search_that_had_no_network_is_asked_again_when_there_is_one(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    await expect(page.locator("#ingestion .state")).to_be_visible()
    await page.context.set_offline(True)
    await page.get_by_label("Describe the picture you look for").fill("red")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="No connection")).to_be_visible()
    await page.context.set_offline(False)
    await expect(page.locator(".tile .open")).to_have_count(1)


async def test_the_arrow_keys_leaf_through_the_matches_and_escape_leads_back(site: Site) -> None:
    for mark in range(3):
        await site.add(picture("red", mark=mark), f"red-{mark}.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").first.click()
    heading = page.get_by_role("dialog").locator("#viewer-name")
    names = [await page.locator(".tile .name").nth(n).inner_text() for n in range(3)]
    for name in (names[1], names[2], names[2]):
        await page.keyboard.press("ArrowRight")
        await expect(heading).to_have_text(name)
    for name in (names[1], names[0]):
        await page.keyboard.press("ArrowLeft")
        await expect(heading).to_have_text(name)
    await page.keyboard.press("Escape")
    await expect(page.locator(".tile .open").first).to_be_focused()


async def test_a_query_picture_is_searched_with_and_not_stored(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red", mark=9)))
    await expect(page.locator(".tile .open")).to_have_count(1)
    await expect(page.get_by_role("img", name="Query picture query.png")).to_be_visible()
    assert [path.name for path in site.images.iterdir()] == ["red.png"]


async def test_an_upload_is_followed_until_it_is_indexed(site: Site) -> None:
    content = picture("yellow", mark=5)
    page = await site.open()
    await page.get_by_label("Pictures to add to the folder").set_input_files(query(content, "new.png"))
    row = page.get_by_role("listitem").filter(has_text="new.png")
    await expect(row.locator(".state")).to_have_text("in the queue")
    await site.add(content, "new.png")
    await expect(row.locator(".state")).to_have_text("indexed")
    await expect(page.get_by_role("heading", name="1 of 1 picture added")).to_be_visible()


async def test_a_refused_upload_says_why(site: Site) -> None:
    page = await site.open()
    await page.get_by_label("Pictures to add to the folder").set_input_files(query(b"no picture at all", "text.png"))
    await expect(page.get_by_role("listitem").filter(has_text="text.png")).to_contain_text("this is not an image")


async def test_a_key_is_asked_for_only_when_an_upload_needs_one(site: Site) -> None:
    page = await site.open(api_keys=("the key",))
    await expect(page.get_by_label("API key")).to_be_hidden()
    await page.get_by_label("Pictures to add to the folder").set_input_files(query(picture("white"), "new.png"))
    await page.get_by_label("API key").fill("wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("this API key is not known")).to_be_visible()
    await page.get_by_label("API key").fill("the key")
    await page.keyboard.press("Enter")
    await expect(page.locator(".uploads .state")).to_have_text("in the queue")
    assert (site.images / "new.png").is_file()


async def test_without_a_model_it_says_where_to_put_one_and_can_try_again(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    site.embedder.away = NoModel("put weights into MODELS_DIR")
    page = await site.open("/?q=red")
    alert = page.get_by_role("alert").filter(has_text="Not available yet")
    await expect(alert).to_contain_text("put weights into MODELS_DIR")
    await expect(alert).to_contain_text("Request ")
    site.embedder.away = None
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator(".tile .open")).to_have_count(1)


async def test_a_search_that_came_too_early_is_answered_when_the_service_is_ready(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    site.embedder.away = NoModel("the models are still loading", retry_after_s=1)
    page = await site.open("/?q=red")
    await expect(page.get_by_role("heading", name="Not available yet")).to_be_visible()
    site.embedder.away = None
    await expect(page.locator(".tile .open")).to_have_count(1)


async def test_the_bar_counts_and_lists_what_is_not_indexed(site: Site) -> None:
    image_id = await site.add(picture("red"), "half.png")
    site.fail(image_id, "half.png")
    page = await site.open()
    await page.get_by_role("button", name="1 not indexed").click()
    await expect(page.get_by_role("dialog").get_by_role("row").nth(1)).to_contain_text("truncated the file ends early")


async def test_nothing_found_is_said_and_a_file_name_never_becomes_markup(site: Site) -> None:
    page = await site.open("/?q=red")
    await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    name = "<img src=x onerror=alert(1)>.png"
    content = picture("red", mark=77)
    await site.add(content, name)
    assert image_id_of(content) in site.catalog.records
    await page.get_by_role("button", name="Search", exact=True).click()
    await expect(page.locator(".tile .name")).to_have_text(name)


async def test_a_file_name_cannot_turn_its_text_around(site: Site) -> None:
    await site.add(picture("red"), "red\u202egpj.png")
    page = await site.open("/?q=red")
    await page.locator(".tile .open").click()
    await expect(page.get_by_role("dialog").locator("#viewer-name")).to_have_text("red\ufffdgpj.png")
    seen = await page.locator("body").evaluate("body => body.innerHTML")
    assert "\ufffdgpj" in seen
    assert "\u202e" not in seen
