"""What the tests of the page do over and over: files as a browser takes them, tiles, rows, and one's own feedback."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from typing import Any

from playwright.sync_api import FilePayload, Locator, Page, expect

from tests.e2e.product import Product

QUESTION = "Describe the picture you look for"
PICK = "Picture to search with"
ADD = "Pictures to add to the folder"
_HAND_OVER = """([kind, content, zone]) => {
    const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], `${kind}.jpg`, { type: "image/jpeg" }));
    if (kind === "pasted") document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: files, bubbles: true }));
    else for (const [name, where] of [["dragenter", document.body], ["dragover", zone], ["drop", zone]])
        where.dispatchEvent(new DragEvent(name, { dataTransfer: files, bubbles: true, cancelable: true }));
}"""


def jpeg(content: bytes, name: str) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": content}


def hand_over(page: Page, content: bytes, *, pasted: bool = False) -> None:
    """Paste a picture, or drop it to be searched with."""
    zone = page.query_selector("[data-purpose=search]")
    page.evaluate(_HAND_OVER, ["pasted" if pasted else "dropped", base64.b64encode(content).decode(), zone])


def ask(page: Page, words: str) -> None:
    page.get_by_label(QUESTION).fill(words)
    page.keyboard.press("Enter")
    expect(page.locator(".tile .open").first).to_be_visible()
    expect(page.locator("#results")).to_have_attribute("aria-busy", "false")


def refine(page: Page) -> None:
    if page.locator("#options").is_hidden():
        page.get_by_role("button", name="Refine").click()


def places(page: Page) -> list[str]:
    """The path of each tile in the grid, in order."""
    return [tile.get_attribute("title") or "" for tile in page.locator(".tile .name").all()]


def is_shown(picture: Locator) -> bool:
    """Whether it came and could be decoded."""
    width: int = picture.evaluate("picture => picture.decode().then(() => picture.naturalWidth, () => 0)")
    return width > 0


def rows_of(page: Page) -> list[list[dict[str, float]]]:
    """The frames of the grid by row, as `left`, `right` and `height` in CSS pixels."""
    boxes = page.locator(".tile .frame").evaluate_all(
        "all => all.map((one) => { const { left, right, top, height } = one.getBoundingClientRect(); return { left, right, top, height } })"
    )
    rows: defaultdict[float, list[dict[str, float]]] = defaultdict(list)
    for box in boxes:
        rows[round(box["top"])].append(box)
    return [rows[top] for top in sorted(rows)]


def ratings(product: Product) -> list[dict[str, Any]]:
    """The feedback that the operator reads, oldest first."""
    answer = product.http.get("/api/v1/feedback")
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]
