"""Searching by examples: more and less like what was found, and several pictures of one's own."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_more_like_this_joins_the_words_and_leaves_the_picture_itself_out(site: Site) -> None:
    red = await site.add(picture("red"), "red.png")
    await site.add(picture("red", mark=4), "twin.png")
    page = await site.open("/?q=red")
    await page.get_by_role("button", name="red.png, score").click()
    await page.get_by_role("button", name="More like this").click()
    await expect(page.get_by_role("heading", name="“red”, like one of your pictures")).to_be_visible()
    await expect(page.locator(".tile .name")).to_have_text("twin.png")
    assert page.url.endswith(f"/?q=red&like={red}")
    await page.go_back()
    await expect(page.locator(".tile .open")).to_have_count(2)


async def test_a_tile_takes_more_and_less_and_their_chips_take_it_back(site: Site) -> None:
    ids = {colour: await site.add(picture(colour), f"{colour}.png") for colour in ("red", "blue", "green")}
    page = await site.open("/?q=red+blue")
    tile = page.locator(".tile").filter(has_text="red.png")
    await tile.hover()
    await tile.get_by_role("button", name="More like red.png").click()
    await expect(page.get_by_role("button", name="Remove: more like red.png")).to_be_visible()
    await page.get_by_role("button", name="Less like blue.png").press("Enter")
    await expect(page.get_by_role("region", name="Results")).to_be_focused()
    await expect(page.locator(".tile .name")).to_have_text(["green.png"])
    assert page.url.endswith(f"/?q=red+blue&like={ids['red']}&unlike={ids['blue']}")

    await page.goto(page.url)
    await expect(page.locator(".tile .name")).to_have_text(["green.png"])
    await page.get_by_role("button", name="Remove: less like blue.png").click()
    await expect(page.locator(".tile .open")).to_have_count(2)
    await page.get_by_label("Describe the picture you look for").fill("")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="More like this")).to_be_visible()
    assert page.url.endswith(f"/?like={ids['red']}")


async def test_what_is_no_example_in_the_address_is_passed_over(site: Site) -> None:
    red = await site.add(picture("red"), "red.png")
    page = await site.open(f"/?q=red&unlike={red}&like=nonsense&of={red}x&region=1,2")
    await expect(page.get_by_label("In force").get_by_role("button")).to_have_text(["less like red.png"])
    await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()


async def test_a_liked_picture_that_is_gone_says_so(site: Site) -> None:
    page = await site.open(f"/?q=red&like={'0' * 64}")
    await expect(page.get_by_role("alert")).to_contain_text("there is no such image")
    await page.get_by_role("button", name="Remove: more like a picture that is gone").click()
    await expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()


async def test_dropped_pictures_are_searched_with_together_and_not_stored(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open()
    await page.evaluate("""() => {
        const drag = (kind, where, files) => where.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
        const files = new DataTransfer();
        for (const name of ["one.png", "two.png"]) files.items.add(new File(["no picture"], name, { type: "image/png" }));
        drag("dragenter", document.body, files);
        drag("drop", document.querySelector("[data-purpose=search]"), files);
    }""")
    for name in ("one", "two"):
        await expect(page.get_by_role("button", name=f"Remove the query picture {name}.png")).to_be_visible()
    await expect(page.get_by_role("alert")).to_contain_text("no picture")
    await expect(page.locator("#drop")).to_be_hidden()
    assert [path.name for path in site.images.iterdir()] == ["red.png"]


CELLS = "<table><tr><td>a red</td><td>dress</td></tr></table>"
IMG = '<meta charset="utf-8"><img src="https://example.org/a.png" alt="A dress">'


@pytest.mark.parametrize(
    ("label", "texts", "name", "taken"),
    [
        ("the search field", {"text/plain": "a red\tdress\r\n", "text/html": CELLS}, "image.png", False),
        ("Folder", {"text/plain": "a red dress"}, "image.png", False),
        ("the page", {"text/plain": "a red\tdress\r\n", "text/html": CELLS}, "image.png", True),
        ("Whole pictures", {"text/plain": "a red dress"}, "image.png", True),
        ("the search field", {}, "image.png", True),  # a screenshot
        ("the search field", {"text/html": IMG}, "image.png", True),  # copied from another page
        ("the search field", {"text/plain": "https://example.org/a.png", "text/html": IMG}, "image.png", True),
        ("the search field", {"text/plain": "red.png"}, "red.png", True),  # a file
    ],
)
async def test_what_is_pasted_is_a_picture_unless_words_are_pasted_where_one_writes(
    site: Site, label: str, texts: dict[str, str], name: str, taken: bool
) -> None:
    """Spreadsheets hand over a rendering of the cells beside their text."""
    page = await site.open()
    await page.get_by_role("button", name="Refine").click()
    field = page.get_by_label({"the search field": "Describe the picture you look for"}.get(label, label), exact=True)
    where = page.locator("body") if label == "the page" else field
    left_alone = await where.evaluate(
        """(where, [texts, name]) => {
            const clipboardData = new DataTransfer();
            for (const [type, text] of Object.entries(texts)) clipboardData.setData(type, text);
            clipboardData.items.add(new File(["a rendering"], name, { type: "image/png" }));
            return where.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }""",
        [texts, name],
    )
    assert left_alone is not taken
    await expect(page.get_by_role("button", name="Remove the query picture")).to_have_count(1 if taken else 0)


async def test_several_query_pictures_are_one_question_and_each_can_go(site: Site) -> None:
    for colour in ("red", "blue", "white"):
        await site.add(picture(colour), f"{colour}.png")
    page = await site.open()
    files = [query(picture(colour, mark=9), f"{colour}-query.png") for colour in ("red", "blue", "green", "yellow", "black")]
    await page.get_by_label("Picture to search with").set_input_files(files)
    await expect(page.get_by_role("heading", name="Similar to your 4 pictures")).to_be_visible()
    await page.get_by_label("Picture to search with").set_input_files(files[:2])
    await expect(page.locator(".tile .name").last).to_have_text("white.png")
    await page.get_by_role("button", name="Remove the query picture red-query.png").click()
    await expect(page.locator(".tile .name").first).to_have_text("blue.png")
    await expect(page.get_by_role("heading", name="Similar to your picture")).to_be_visible()
