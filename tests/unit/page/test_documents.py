"""The interactive API documents in a real browser: everything they show comes from the service, within their own policy."""

from __future__ import annotations

import pytest
from playwright.async_api import Page, expect

from searchsvc.operations import OPERATIONS
from tests.unit.page.conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _opened(site: Site, address: str) -> tuple[Page, list[str]]:
    """The page, and whatever went wrong or left this machine while it was built up."""
    await site.open("/openapi.json")
    assert site.server is not None
    origin = str(site.server.make_url("/"))
    trouble: list[str] = []
    page = await site.browser.new_page()
    page.set_default_timeout(30_000)
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("console", lambda message: trouble.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("requestfailed", lambda request: trouble.append(f"{request.url} failed"))
    page.on("response", lambda answer: trouble.append(f"{answer.url} is {answer.status}") if answer.status >= 400 else None)
    page.on("request", lambda asked: None if asked.url.startswith((origin, "data:", "blob:")) else trouble.append(asked.url))
    await page.goto(origin.rstrip("/") + address)
    return page, trouble


async def test_swagger_ui_shows_every_operation_and_asks_the_service_itself(site: Site) -> None:
    page, trouble = await _opened(site, "/docs")
    await expect(page.locator(".opblock")).to_have_count(len(OPERATIONS))
    status = page.locator("#operations-operations-getStatus")
    await status.locator(".opblock-summary-control").click()
    await status.get_by_role("button", name="Try it out").click()
    await status.get_by_role("button", name="Execute").click()
    await expect(status.locator(".live-responses-table .response-col_status").last).to_contain_text("200")
    assert trouble == []


async def test_redoc_shows_every_operation(site: Site) -> None:
    page, trouble = await _opened(site, "/redoc")
    for operation in OPERATIONS:
        await expect(page.locator(f"[id='tag/{operation.tag}/operation/{operation.name}']")).to_be_attached()
    await page.get_by_role("textbox").first.fill("feedback")  # its index is built in a worker
    await expect(page.locator("[role=search] [role=menuitem]").first).to_be_visible()
    assert trouble == []
