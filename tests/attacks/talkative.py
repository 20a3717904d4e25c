"""A search service that logs everything, asked well and badly by somebody with secrets: `python -m tests.attacks.talkative FOLDER`.

Its log goes to stderr; what it answers, but for the tokens of searches, and what else it shows, to stdout.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiohttp import FormData

from core import logs
from core.schemas import Priority, TextEmbeddings
from searchsvc.access import WriteAccess
from searchsvc.settings import SearchSettings
from tests.attacks.services import Attacked, attacked
from tests.fakes import FakeEmbedder, picture

JWT = "the-jwt-secret-that-nobody-may-read-0123"
OLD = "an-older-jwt-secret-which-verifies-still"
KEY = "the-api-key-of-some-client-0123456789"
QDRANT = "the-key-of-the-qdrant-server-98765432"
WRONG = "a-key-that-is-not-known-but-may-be-elsewhere"
SECRETS = {"jwt_secret": OLD, "jwt_secrets": f"now:{JWT}", "api_keys": KEY, "qdrant_api_key": QDRANT}


async def _flows(service: Attacked) -> None:
    shown: dict[str, Any] = {}
    async with service.session.post(service.address + "/api/v1/search-image", json={"text": "red"}) as answer:
        shown = await answer.json()
    tokens = [shown["jwt"], *(match["jwt"] for match in shown["matches"])]
    key, wrong = {"Authorization": f"Bearer {KEY}"}, {"Authorization": f"Bearer {WRONG}"}
    said: list[object] = []

    async def ask(method: str, path: str, **options: Any) -> None:
        said.append(await service.ask(method, path, **options))

    for token in (*tokens, *tokens, tokens[0][:-3], f"{tokens[0]}x"):
        await ask("POST", "/api/v1/create-feedback", json={"user_feedback": 5, "jwt": token}, headers=key)
    await ask("POST", "/api/v1/create-feedback", json={"user_feedback": 50, "jwt": tokens[0]})
    await ask(
        "POST", "/api/v1/create-feedback", data=json.dumps({"jwt": tokens[0]})[:-1], headers={"Content-Type": "application/json"}
    )
    await ask("GET", f"/api/v1/{tokens[0]}")
    await ask("GET", f"/api/v1/status?key={KEY}&jwt={tokens[0]}")
    for headers in (key, wrong, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}):
        form = FormData()
        form.add_field("file", picture("blue"), filename="blue.png")
        await ask("POST", "/api/v1/images", data=form, headers=headers)
        await ask("DELETE", f"/api/v1/images/{'0' * 64}", headers=headers)
        await ask("GET", "/api/v1/feedback/report", headers=headers)
    for path in ("/metrics", "/health", "/api/v1/status", "/api/v1/failures", "/openapi.json"):
        await ask("GET", path, headers=key)
    broken = (f"X: {KEY * 400}", f"Authorization : Bearer {KEY}", f"Bad\x01Header: {KEY}", f"{KEY}")
    unreadable = [f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{line}\r\n\r\n" for line in broken]
    said += [await service.raw(sent.encode()) for sent in (*unreadable, f"GET /{KEY} HTTP/{KEY}\r\n\r\n")]
    service.embedder.__class__ = _Broken
    await ask("POST", "/api/v1/search-image", json={"text": "blue"}, headers=key)
    print(said)
    print("TOKENS", *tokens)


class _Broken(FakeEmbedder):
    """Fails with what it was doing in its hands."""

    async def embed_texts(
        self, texts: Sequence[str], *, priority: Priority = Priority.QUERY, fingerprint: str | None = None
    ) -> TextEmbeddings:
        held = SECRETS  # a local variable, as a trace with variables would show it
        raise RuntimeError(f"{len(held)} secrets were near")


async def main(root: Path) -> None:
    settings = SearchSettings(images_dir=root, data_dir=root, **SECRETS)
    print(repr(settings), str(settings), repr(WriteAccess(settings.api_keys, listens_on="127.0.0.1")))
    async with attacked("searchsvc", root, **SECRETS) as service:
        await _flows(service)


if __name__ == "__main__":
    logs.configure(level="debug", log_format="json", service="searchsvc")
    asyncio.run(main(Path(sys.argv[1])))
