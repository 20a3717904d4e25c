"""Pictures that lie in a bucket are shown by the page, under its content policy."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from tests.buckets import KEYS, FakeS3
from tests.fakes import picture
from tests.unit.page.conftest import Site


@pytest.mark.asyncio(loop_scope="module")
async def test_the_viewer_shows_a_picture_by_a_link_into_the_bucket(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS.access_key_id)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS.secret_access_key)
    with FakeS3() as service:
        bucket = service.bucket("pictures", "my photos")
        content = picture("red", size=(300, 200))
        await site.add(content, "a b.png")
        bucket.put("a b.png", content, "text/html")
        fetched: list[str] = []
        page = await site.open("/?q=red", images_url=bucket.url, images_s3_endpoint=service.endpoint)
        page.on("response", lambda answer: fetched.append(answer.url) if answer.status == 200 else None)
        await page.locator("#results img").first.click()
        shown = page.locator("dialog img").first
        await expect(shown).to_be_visible()
        await page.wait_for_function("() => document.querySelector('dialog img').naturalWidth === 300")
        assert [url for url in fetched if url.startswith(f"{service.endpoint}/pictures/my%20photos/a%20b.png?")]
        await page.close()
