"""The screenshots of the documents: `GALLERY=docs/images pytest tests/e2e/test_gallery.py` takes them anew. Every photo on them is under CC0."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.checkpoints import models_dir
from tests.e2e.looking import ADD, PICK, ask, jpeg, refine
from tests.e2e.product import REPOSITORY, Product
from tests.e2e.stock import Stock, photos

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.shared,
    pytest.mark.skipif("GALLERY" not in os.environ, reason="takes screenshots into the folder that GALLERY names"),
]

DESK = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 780}
MOST_BYTES = 150_000
_A_CLASS = 14
_GAP = 24
_COME = """() => {
    const inSight = [...document.images].filter((one) => one.getBoundingClientRect().top < innerHeight);
    return Promise.all(inSight.map((one) => one.decode().catch(() => null))).then(() => inSight.length);
}"""


@pytest.fixture(scope="module")
def house(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, Stock]]:
    root = tmp_path_factory.mktemp("gallery")
    weights = models_dir(root / "models")
    stock = photos(shared, weights, a_class=_A_CLASS)
    with Product(root, models_dir=weights, environment={"MODEL_PROFILE": stock.profile}) as product:
        stock.put(stock.shelf, product.images)
        product.start_and_wait()
        product.wait_until_indexed(len(stock.shelf))
        yield product, stock


@pytest.fixture
def page(browser: Browser, house: tuple[Product, Stock]) -> Iterator[Page]:
    opened = browser.new_page(base_url=str(house[0].http.base_url), reduced_motion="reduce")
    opened.set_viewport_size(DESK)  # type: ignore[arg-type]
    opened.goto("/")
    expect(opened.locator("#ingestion .state")).to_have_text("Up to date")
    yield opened
    opened.context.close()


def results(page: Page, stock: Stock) -> None:
    ask(page, stock.words)


def picture(page: Page, stock: Stock) -> None:
    page.get_by_label(PICK).set_input_files(jpeg(stock.asked, "query.jpg"))
    expect(page.locator(".tile .open").first).to_be_visible()


def part(page: Page, stock: Stock) -> None:
    picture(page, stock)
    page.get_by_role("button", name="Query picture query.jpg").click()
    for side, value in {"left": 12, "right": 48, "top": 16, "bottom": 80}.items():
        page.get_by_role("slider", name=side).fill(str(value))


def regions(page: Page, _: Stock) -> None:
    page.get_by_text("Regions", exact=True).click()
    ask(page, "a shoe")


def region(page: Page, stock: Stock) -> None:
    regions(page, stock)
    page.locator(".tile .open").nth(2).click()
    expect(page.locator(".segments .chip[aria-pressed=true]")).to_have_count(1)


def refined(page: Page, _: Stock) -> None:
    ask(page, "a blue dress")
    refine(page)
    page.get_by_role("combobox", name="Folder").fill("dress")
    page.get_by_label("Orientation").select_option("portrait")
    page.get_by_label("Group near-duplicates").check()
    expect(page.get_by_role("button", name="Remove: near-duplicates grouped")).to_be_visible()


def examples(page: Page, stock: Stock) -> None:
    ask(page, stock.words)
    page.get_by_role("button", name="More like").nth(3).press("Enter")
    expect(page.get_by_role("button", name="Remove: more like")).to_be_visible()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    page.get_by_role("button", name="Less like").nth(1).press("Enter")
    expect(page.get_by_role("button", name="Remove: less like")).to_be_visible()


def why(page: Page, stock: Stock) -> None:
    examples(page, stock)
    page.get_by_text("Both", exact=True).click()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    page.locator(".tile .open").first.click()
    page.get_by_text("Why?").click()
    page.get_by_role("dialog").get_by_role("button", name="Rate 8 of 10").click()


def compared(page: Page, stock: Stock) -> None:
    picture(page, stock)
    refine(page)
    page.get_by_label("Compare with").select_option("ResNet")
    expect(page.locator(".side")).to_have_count(2)
    page.get_by_role("button", name="Refine").click()


def dark(page: Page, _: Stock) -> None:
    page.emulate_media(color_scheme="dark", reduced_motion="reduce")
    ask(page, "a dress")


SHOTS: dict[str, Callable[[Page, Stock], None]] = {
    shot.__name__: shot for shot in (results, picture, part, regions, region, refined, examples, why, compared, dark)
}


@pytest.mark.parametrize("name", SHOTS)
def test_a_shot_is_taken_on_a_desk(page: Page, house: tuple[Product, Stock], name: str) -> None:
    SHOTS[name](page, house[1])
    keep(name, shot_of(page))


def test_three_shots_are_taken_on_a_phone(page: Page, house: tuple[Product, Stock]) -> None:
    page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    ask(page, "a dress")
    found = shot_of(page)
    page.locator(".tile .open").first.click()
    expect(page.locator(".segments h3")).to_be_visible()
    opened = shot_of(page)
    page.goto("/")
    compared(page, house[1])
    keep("phone", found, opened, shot_of(page))


def test_a_shot_is_taken_while_pictures_are_added(page: Page, house: tuple[Product, Stock]) -> None:
    """The last: what is added stays. Its bytes are others, so that each is a picture of its own."""
    _, stock = house
    results(page, stock)
    shoes = [content for path, content in stock.shelf.items() if path.startswith("shoes/")][:6]
    files = [jpeg(content + b"\0", f"new-{number}.jpg") for number, content in enumerate(shoes, 1)]
    page.get_by_label(ADD).set_input_files(files)
    expect(page.locator("#ingestion progress")).to_be_visible()
    expect(page.locator("#uploads .indexed").first).to_be_visible()
    keep("adding", shot_of(page))


def shot_of(page: Page) -> Image.Image:
    """What is in sight, once its pictures have come."""
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.evaluate(_COME)
    page.wait_for_timeout(200)  # masks
    return Image.open(io.BytesIO(page.screenshot()))


def keep(name: str, *shots: Image.Image) -> None:
    """Side by side, as one small file."""
    width = sum(shot.width for shot in shots) + _GAP * (len(shots) - 1)
    sheet = Image.new("RGB", (width, shots[0].height), "white")
    left = 0
    for shot in shots:
        sheet.paste(shot, (left, 0))
        left += shot.width + _GAP
    path = REPOSITORY / os.environ["GALLERY"] / f"{name}.webp"
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, "WEBP", quality=80, method=6)
    assert path.stat().st_size < MOST_BYTES, name
