"""Narrowing a search on the page: each filter by its control, its chip and its place in the address."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from tests.fakes import picture
from tests.unit.page.conftest import Site, query

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROME = {"lat": 41.9, "lon": 12.5}


async def found(page: Page, *names: str) -> None:
    await expect(page.locator(".tile .name")).to_have_text(list(names))


async def refine(page: Page, label: str, value: str) -> None:
    """Write into a field of the panel, and leave it as a keyboard does."""
    if await page.locator("#options").is_hidden():
        await page.get_by_role("button", name="Refine").click()
    await page.get_by_label(label, exact=True).fill(value)
    await page.keyboard.press("Tab")


async def test_a_filter_narrows_the_results_stands_in_the_address_and_goes_by_its_chip(site: Site) -> None:
    (site.images / "holiday").mkdir()
    await site.add(picture("red"), "holiday/red.png")
    await site.add(picture("red", mark=3), "home.png")
    page = await site.open("/?q=red")
    await expect(page.locator(".tile")).to_have_count(2)
    await refine(page, "Folder", "holiday")
    await found(page, "red.png")
    assert page.url.endswith("/?q=red&folder=holiday")

    await page.goto(page.url)
    await found(page, "red.png")
    await page.get_by_role("button", name="Remove: in holiday").click()
    await expect(page.locator(".tile")).to_have_count(2)
    assert page.url.endswith("/?q=red")
    await expect(page.get_by_label("Describe the picture you look for")).to_be_focused()


@pytest.mark.parametrize(
    ("label", "value", "address", "chip"),
    [
        ("File name", "IMG_*", "name=IMG_*", "named IMG_*"),
        ("Megapixels, at least", "0.04", "mp=0.04", "0.04 megapixels or more"),
        ("Taken from", "2024-01-01", "from=2024-01-01", "from 2024-01-01"),
        ("Taken until", "2030-01-01", "to=2030-01-01", "until 2030-01-01"),
        ("Object", "half", "label=half", "shows half"),
    ],
)
async def test_each_filter_has_a_field_a_chip_and_a_name_in_the_address(
    site: Site, label: str, value: str, address: str, chip: str
) -> None:
    await site.add(picture("red", size=(300, 200)), "IMG_1.png")
    other = await site.add(picture("red", mark=3), "scan.png")
    site.tell(other, taken_at=(0.0 if "from" in address else 2e9), labels=[])
    page = await site.open("/?q=red")
    await expect(page.locator(".tile")).to_have_count(2)
    await refine(page, label, value)
    await found(page, "IMG_1.png")
    assert page.url.endswith(f"/?q=red&{address}")
    await page.get_by_role("button", name=f"Remove: {chip}").click()
    await expect(page.locator(".tile")).to_have_count(2)


async def test_pictures_are_narrowed_to_an_orientation_and_to_how_many_they_show(site: Site) -> None:
    tall = await site.add(picture("red", size=(40, 60)), "tall.png")
    await site.add(picture("red", size=(40, 60), mark=2), "one.png")
    await site.add(picture("red"), "wide.png")
    site.tell(tall, label_counts=["1 half", "2 half"])
    page = await site.open("/?q=red&orientation=portrait")
    await expect(page.locator(".tile")).to_have_count(2)
    await page.get_by_role("button", name="Refine").click()
    await expect(page.get_by_label("How many, at least")).to_be_disabled()
    await refine(page, "Object", "half")
    await refine(page, "How many, at least", "2")
    await found(page, "tall.png")
    assert page.url.endswith("/?q=red&label=half&count=2&orientation=portrait")
    await page.get_by_role("button", name="Remove: shows at least 2 of half").click()
    await expect(page.locator(".tile")).to_have_count(2)
    await page.get_by_label("Orientation").select_option("any")
    await expect(page.locator(".tile")).to_have_count(3)


async def test_a_place_needs_four_sides_and_can_be_that_of_a_picture(site: Site) -> None:
    rome = await site.add(picture("red"), "rome.png")
    near = await site.add(picture("red", mark=3), "near.png")
    await site.add(picture("red", mark=5), "nowhere.png")
    site.tell(rome, **ROME)
    site.tell(near, lat=41.92, lon=12.51)
    page = await site.open("/?q=red")
    for side, value in (("South", "41"), ("West", "12"), ("North", "42")):
        await refine(page, side, value)
    await expect(page.get_by_text("A place needs all four sides.")).to_be_visible()
    await expect(page.locator(".tile")).to_have_count(3)
    await refine(page, "East", "12.505")
    await found(page, "rome.png")
    assert page.url.endswith("/?q=red&box=41%2C12%2C42%2C12.505")
    await expect(page.get_by_text("A place needs all four sides.")).to_be_hidden()

    await page.locator(".tile .open").click()
    await page.get_by_role("button", name="Near this place").click()
    await expect(page.locator(".tile")).to_have_count(2)
    assert page.url.endswith("box=41.855%2C12.44%2C41.945%2C12.56")
    await page.get_by_role("button", name="Remove: taken in 41.85 – 41.95° N, 12.44 – 12.56° E").click()
    await expect(page.locator(".tile")).to_have_count(3)


async def test_the_panel_offers_the_folders_and_labels_that_there_are(site: Site) -> None:
    (site.images / "holiday").mkdir()
    for mark in range(2):
        await site.add(picture("red", mark=mark), f"holiday/{mark}.png")
    page = await site.open()
    await page.get_by_role("button", name="Refine").click()
    await expect(page.locator("#known-folders option")).to_have_text("2 pictures")
    await expect(page.locator("#known-labels option")).to_have_attribute("value", "half")


async def test_folders_that_came_meanwhile_are_suggested_when_the_panel_is_opened_again(site: Site) -> None:
    (site.images / "holiday").mkdir()
    await site.add(picture("red"), "holiday/red.png")
    page = await site.open()
    button = page.get_by_role("button", name="Refine")
    await button.click()
    await expect(page.locator("#known-folders option")).to_have_count(1)
    await button.click()
    (site.images / "work").mkdir()
    await site.add(picture("blue"), "work/blue.png")
    await button.click()
    await expect(page.locator("#known-folders option[value=work]")).to_have_count(1)


async def test_a_query_picture_is_filtered_as_words_are_and_an_empty_answer_says_so(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?from=2000-01-01&to=2000-12-31")
    await page.get_by_label("Picture to search with").set_input_files(query(picture("red", mark=9)))
    await expect(page.get_by_text("No picture that passes the filters")).to_be_visible()
    await page.get_by_role("button", name="Clear all").click()
    await found(page, "red.png")


async def test_without_is_a_chip_like_every_other_condition(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red")
    await refine(page, "Without", "people")
    await expect(page.get_by_role("button", name="Remove: without people")).to_be_visible()
    assert page.url.endswith("/?q=red&without=people")
    await page.get_by_role("button", name="Remove: without people").click()
    await expect(page.get_by_label("In force")).to_be_hidden()


async def test_a_filter_that_cannot_be_is_said_by_the_service_and_goes_by_its_chip(site: Site) -> None:
    await site.add(picture("red"), "red.png")
    page = await site.open("/?q=red&mp=-5")
    await expect(page.get_by_role("alert")).to_contain_text("filter.size.min_megapixels")
    await page.get_by_role("button", name="Search", exact=True).click()
    await page.get_by_role("button", name="Remove: -5 megapixels or more").click()
    await found(page, "red.png")
