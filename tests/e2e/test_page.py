"""The page in Chromium over the real process: what its users do, from a word to a rating, and what they see while they do."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.checkpoints import models_dir
from tests.e2e.looking import ADD, PICK, QUESTION, ask, hand_over, is_shown, jpeg, places, ratings, refine, rows_of
from tests.e2e.product import Product, wait_for
from tests.e2e.stock import Stock, corner, drawn, photos

pytestmark = pytest.mark.e2e

ITSELF = re.compile(r"1\.000|0\.99\d")
"""The score of a picture that is asked by."""


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, Stock]]:
    """One process for all, with two spaces and a segmenter, and what lies in its folder."""
    root = tmp_path_factory.mktemp("page")
    weights = models_dir(root / "models")
    try:
        stock = photos(request.getfixturevalue("shared"), weights)
    except pytest.skip.Exception:
        stock = drawn()
    with Product(root, models_dir=weights, environment={"MODEL_PROFILE": stock.profile, "SEGMENTER": "tiny-seg.pt"}) as product:
        stock.put(stock.shelf, product.images)
        product.start_and_wait()
        product.wait_until_indexed(len(stock.shelf))
        yield product, stock


@pytest.fixture
def product(house: tuple[Product, Stock]) -> Product:
    return house[0]


@pytest.fixture
def stock(house: tuple[Product, Stock]) -> Stock:
    return house[1]


@pytest.fixture
def page(browser: Browser, product: Product) -> Iterator[Page]:
    trouble: list[str] = []
    opened = browser.new_page(base_url=str(product.http.base_url), viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(20_000)
    opened.on("pageerror", lambda error: trouble.append(str(error)))
    opened.on("console", lambda message: trouble.append(message.text) if "Content Security" in message.text else None)
    opened.goto("/")
    yield opened
    opened.context.close()
    assert trouble == []


def wait_for_the_streets(product: Product, stock: Stock) -> None:
    """The late pictures are in the folder and indexed, whichever test was first to copy them."""
    stock.put(stock.late, product.images)
    wait_for("the late pictures", lambda: product.status()["images"]["indexed"] >= len(stock.shelf | stock.late), timeout_s=60)


# --- asking -----------------------------------------------------------------------------------------------------------


def test_words_give_a_grid_of_justified_rows_with_pictures_that_load_and_the_model_is_named(page: Page, stock: Stock) -> None:
    ask(page, stock.words)
    assert sum(place.startswith(f"{stock.folder}/") for place in places(page)[:3]) >= 2
    assert is_shown(page.locator(".tile img").first)
    expect(page.locator("#model")).to_have_text(re.compile("Answered by (Starter|CLIP)"))
    *full, _ = rows_of(page)
    assert full
    for row in full:
        assert max(box["height"] for box in row) - min(box["height"] for box in row) < 2
        assert row[0]["left"] == pytest.approx(full[0][0]["left"], abs=1)
        assert row[-1]["right"] == pytest.approx(full[0][-1]["right"], abs=1)


@pytest.mark.parametrize("way", ["picked", "pasted", "dropped"])
def test_a_query_picture_is_previewed_and_finds_itself(page: Page, stock: Stock, way: str) -> None:
    if way == "picked":
        page.get_by_label(PICK).set_input_files(jpeg(stock.asked, "picked.jpg"))
    else:
        hand_over(page, stock.asked, pasted=way == "pasted")
    preview = page.get_by_role("img", name=f"Query picture {way}.jpg")
    expect(preview).to_be_visible()
    assert is_shown(preview)
    first = page.locator(".tile").first
    expect(first.locator(".score")).to_have_text(ITSELF)
    assert stock.shelf[places(page)[0]] == stock.asked
    page.get_by_role("button", name="Remove the query picture").click()
    expect(page.get_by_role("heading", name="Find your pictures")).to_be_visible()


def test_a_box_on_the_query_picture_is_what_is_searched_with(page: Page, stock: Stock) -> None:
    page.get_by_label(PICK).set_input_files(jpeg(stock.asked, "query.jpg"))
    whole = page.locator(".tile .score").first
    expect(whole).to_have_text(ITSELF)
    page.get_by_role("button", name="Query picture query.jpg").click()
    box = page.locator(".cutting:not([aria-busy])").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.1 * box["width"], box["y"] + 0.1 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 0.6 * box["height"], steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Search with this part").click()
    expect(page.get_by_role("button", name="Remove: a part of your picture")).to_be_visible()
    expect(page.locator(".tile .score").first).not_to_have_text(ITSELF)


def test_regions_are_found_by_words_drawn_as_masks_and_searched_with(page: Page, product: Product, stock: Stock) -> None:
    wait_for_the_streets(product, stock)
    if not product.status()["segments"]:
        pytest.skip("the small segmenter of random weights finds no segments: needs the shared data folder")
    page.get_by_text("Regions", exact=True).click()
    ask(page, "a person")
    frame = page.locator(".tile .frame").first
    expect(frame.locator(".bbox")).to_be_visible()
    frame.locator("..").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.locator(".segments .chip[aria-pressed=true]")).to_have_count(1)
    mask = dialog.locator(".mask")
    expect(mask).to_be_visible()
    address = re.search(r'url\("([^"]+)"\)', mask.evaluate("mask => getComputedStyle(mask).maskImage"))
    assert address is not None
    assert page.request.get(address[1]).headers["content-type"] == "image/png"
    dialog.get_by_role("button", name="Search with this region").click()
    expect(page.get_by_role("button", name="Remove: like a region of")).to_be_visible()
    expect(page.locator(".tile .bbox").first).to_be_visible()
    assert re.search(r"scope=segments&of=[0-9a-f]{64}\.\d+$", page.url), page.url


def test_filters_are_suggested_become_chips_and_narrow(page: Page, stock: Stock) -> None:
    ask(page, stock.words)
    refine(page)
    expect(page.locator(f"#known-folders option[value='{stock.folder}']")).to_have_count(1)
    page.get_by_role("combobox", name="Folder").fill(stock.folder)
    page.keyboard.press("Tab")
    chip = page.get_by_role("button", name=f"Remove: in {stock.folder}")
    expect(chip).to_be_visible()
    count = sum(path.startswith(f"{stock.folder}/") for path in stock.shelf)
    expect(page.locator(".tile")).to_have_count(count)
    assert all(place.startswith(f"{stock.folder}/") for place in places(page))
    chip.click()
    expect(page.locator(".tile")).to_have_count(24)


# --- what came ---------------------------------------------------------------------------------------------------------


def test_a_rating_arrives_signed_with_what_was_asked_and_shown(page: Page, product: Product, stock: Stock) -> None:
    ask(page, stock.words)
    before = len(ratings(product))
    page.locator(".tile .open").nth(1).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Rate 9 of 10").click()
    expect(dialog.get_by_text("Rated 9 of 10. Thank you.")).to_be_visible()
    last = ratings(product)[-1]
    assert len(ratings(product)) == before + 1
    assert last["rating"] == 9
    assert last["asked"]["text"] == stock.words
    path = dialog.locator("dd").nth(1).inner_text()
    assert product.http.get(f"/api/v1/images/{last['image_id']}").json()["paths"] == [path]


def test_why_tells_the_score_that_the_tile_shows(page: Page) -> None:
    words = "something blue"  # nobody has rated it
    ask(page, words)
    shown = float(page.locator(".tile .score").first.inner_text())
    page.locator(".tile .open").first.click()
    dialog = page.get_by_role("dialog")
    score = dialog.locator("dd").first.inner_text()
    assert float(score) == pytest.approx(shown, abs=0.0006)
    dialog.get_by_text("Why?").click()
    expect(dialog.get_by_role("row", name=f"Words “{words}”")).to_contain_text(score)
    expect(dialog.get_by_text("Whole picture")).to_be_visible()


def test_the_next_page_goes_on_and_repeats_nothing_though_a_picture_came(page: Page, product: Product, stock: Stock) -> None:
    ask(page, stock.words)
    expect(page.locator(".tile")).to_have_count(24)
    first = places(page)
    between = next(iter(stock.late))
    stock.put({between: stock.late[between]}, product.images)
    wait_for("it is indexed", lambda: product.status()["images"]["indexed"] > len(stock.shelf), timeout_s=30)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".tile")).not_to_have_count(24)
    every = places(page)
    assert every[:24] == first
    assert len(set(every)) == len(every)


def test_two_models_answer_side_by_side_and_either_can_be_asked_alone(page: Page, stock: Stock) -> None:
    page.get_by_label(PICK).set_input_files(jpeg(stock.asked, "query.jpg"))
    expect(page.locator(".tile .open").first).to_be_visible()
    refine(page)
    page.get_by_label("Compare with").select_option("ResNet")
    sides = page.locator(".side")
    expect(sides).to_have_count(2)
    expect(sides.nth(1).locator("h3")).to_have_text("ResNet")
    expect(sides.nth(1).locator(".change").first).to_be_visible()
    assert sides.nth(0).locator(".name").all_inner_texts() != sides.nth(1).locator(".name").all_inner_texts()
    page.get_by_role("button", name=re.compile("Remove: .* against ResNet")).click()
    page.get_by_role("combobox", name="Model", exact=True).select_option("ResNet")
    expect(page.locator("#model")).to_have_text("Answered by ResNet")


def test_near_duplicates_stand_as_one_and_varied_results_in_another_order(page: Page, stock: Stock) -> None:
    page.get_by_label(PICK).set_input_files(jpeg(stock.asked, "query.jpg"))
    expect(page.locator(".tile .open").first).to_be_visible()
    assert f"{stock.folder}/copy.jpg" in places(page)[:2]
    refine(page)
    page.get_by_label("Group near-duplicates").check()
    group = page.locator(".tile").first.locator(".group")
    expect(group).to_have_text("+1")
    plain = places(page)
    with page.expect_response("**/search-image"):
        page.get_by_label("Varied").check()
    expect(page.get_by_role("button", name="Remove: varied")).to_be_visible()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")
    assert places(page)[0] == plain[0]
    assert places(page) != plain
    group.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-name")).to_have_text("copy.jpg")


# --- the folder --------------------------------------------------------------------------------------------------------


def test_an_upload_is_followed_live_until_it_is_found(page: Page, product: Product, stock: Stock) -> None:
    page.evaluate("""() => {
        window.words = [];
        const watch = () => document.querySelectorAll("#uploads .state").forEach((one) => window.words.push(one.textContent));
        new MutationObserver(watch).observe(document.querySelector("#uploads"), { subtree: true, childList: true, characterData: true });
    }""")
    expect(page.locator("#ingestion .state")).to_have_text("Up to date")
    asked = []
    page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/status") else None)
    picture = corner(next(reversed(stock.late.values())))
    page.get_by_label(ADD).set_input_files(jpeg(picture, "just added.jpg"))
    row = page.get_by_role("listitem").filter(has_text="just added.jpg")
    expect(row.locator(".state")).to_have_text("indexed", timeout=20_000)
    words = page.evaluate("window.words")
    assert "waiting" in words
    assert {"in the queue", "being indexed"} & set(words)
    assert asked == []
    page.get_by_label(PICK).set_input_files(jpeg(picture, "query.jpg"))
    expect(page.locator(".tile .name").first).to_have_text("just added.jpg")
    [image_id] = [match["image_id"] for match in product.search_by_picture(picture, top_k=1)["matches"]]
    assert product.http.delete(f"/api/v1/images/{image_id}").status_code == 204


def test_the_bar_moves_while_pictures_are_copied_into_the_folder(page: Page, product: Product, stock: Stock) -> None:
    before = product.status()["images"]["indexed"]
    bar = page.locator("#ingestion")
    expect(bar).to_contain_text(f"{before} pictures")
    page.evaluate("""() => {
        const bar = document.querySelector("#ingestion");
        window.told = [];
        new MutationObserver(() => window.told.push([bar.querySelector("progress")?.value ?? -1, bar.innerText])).observe(bar, { childList: true });
    }""")
    more = {f"later/{path.replace('/', '-')}": content + b"\0\0" for path, content in (stock.shelf | stock.late).items()}
    for path, content in more.items():
        stock.put({path: content}, product.images)
        page.wait_for_timeout(50)
    expect(bar).to_contain_text(re.compile(f"^{before + len(more)} pictures.*Up to date"), timeout=40_000)
    told = page.evaluate("window.told")
    done = [value for value, text in told if value >= 0 and re.search(r"\d+ of \d+ pictures", text)]
    assert done == sorted(done)
    assert done[0] < done[-1]
    expect(bar.get_by_role("progressbar")).to_have_count(0)


# --- for everybody -----------------------------------------------------------------------------------------------------


def test_the_keyboard_alone_searches_opens_rates_and_goes_on(page: Page, stock: Stock) -> None:
    press = page.keyboard.press
    page.keyboard.type(stock.words)  # the field has the focus from the start
    press("Enter")
    tile = page.locator(".tile .open").first
    expect(tile).to_be_visible()
    for _ in range(60):
        press("Tab")
        if tile.evaluate("tile => tile === document.activeElement"):
            break
    expect(tile).to_be_focused()
    press("Enter")
    dialog = page.get_by_role("dialog")
    heading = dialog.locator("#viewer-name")
    first = heading.inner_text()
    press("ArrowRight")
    expect(heading).not_to_have_text(first)
    rate = dialog.get_by_role("button", name="Rate 7 of 10")
    for _ in range(30):
        press("Tab")
        if rate.evaluate("rate => rate === document.activeElement"):
            break
    press("Enter")
    expect(dialog.get_by_text("Rated 7 of 10. Thank you.")).to_be_visible()
    press("Escape")
    expect(tile).to_be_focused()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_by_day_on_a_desk_and_by_night_on_a_phone(page: Page, stock: Stock, scheme: str, width: int) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 800})
    ask(page, stock.words)
    ground = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    assert (max(map(int, re.findall(r"\d+", ground))) < 60) == (scheme == "dark")
    for step in ("results", "refined", "opened"):
        if step == "refined":
            refine(page)
        elif step == "opened":
            page.locator(".tile .open").first.click()
            expect(page.get_by_role("dialog").locator(".segments h3")).to_be_visible()
        found = Axe().run(page)
        assert found.response["violations"] == [], f"{step}: {found.generate_report()}"
        assert page.evaluate("document.documentElement.scrollWidth") <= width, step


# --- the last: it ends the process -------------------------------------------------------------------------------------


def test_a_service_that_is_away_is_said_and_the_search_is_answered_when_it_is_back(
    page: Page, product: Product, stock: Stock
) -> None:
    """Back without the model of before: the shipped one answers, and the page says that it stands in."""
    ask(page, stock.words)
    product.kill()
    page.get_by_label(QUESTION).fill(f"{stock.words} again")
    page.keyboard.press("Enter")
    alert = page.get_by_role("alert").filter(has_text="No connection")
    expect(alert).to_contain_text("Is it running?")
    expect(page.locator("#ingestion")).to_have_text("The server does not answer. Is it running?")
    product.environment |= {"MODEL_PROFILE": "auto", "CLIP_MODEL": "nowhere/to-be-found", "SEGMENTER": "none"}
    product.start()
    expect(alert).to_have_count(0, timeout=60_000)
    expect(page.locator("#notice")).to_contain_text("FALLBACK: the small starter model answers", timeout=30_000)
    expect(page.locator("#model")).to_have_text("Answered by starter")
    wait_for("the folder is indexed again", lambda: product.status()["images"]["pending"] == 0, timeout_s=60)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.locator(".tile .open").first).to_be_visible()
    expect(page.get_by_role("heading", name=f"“{stock.words} again”")).to_be_visible()
