"""Snapshots of our collections on a Qdrant server: made there, fetched, checked, and put back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx

from core.errors import VectorsUnavailable
from core.files import sync
from core.settings import FolderSettings
from core.vectors.server import ServerStore

_SNAPSHOT = ".snapshot"
_PATIENCE_S = 3600.0


@asynccontextmanager
async def server_snapshots(settings: FolderSettings, url: str) -> AsyncIterator[ServerSnapshots]:
    headers = {} if settings.qdrant_api_key is None else {"api-key": settings.qdrant_api_key}
    connected = httpx.AsyncClient(base_url=url, headers=headers, timeout=_PATIENCE_S, trust_env=False)
    async with ServerStore.of(settings, url) as store, connected as http:
        yield ServerSnapshots(store, http)


class ServerSnapshots:
    """Of the store's collections; `http` knows the server's address and key."""

    def __init__(self, store: ServerStore, http: httpx.AsyncClient) -> None:
        self._store = store
        self._http = http

    async def fetch(self, target: Path) -> dict[str, int]:
        """A snapshot of each collection into the folder `target`. Returns their points. Raises OSError, VectorsUnavailable."""
        target.mkdir(mode=0o700)
        points = {}
        for size in await self._store.sizes():
            of_collection = f"/collections/{quote(self._store.name_of(size.collection), safe='')}/snapshots"
            made = (await self._asked("POST", of_collection)).json()["result"]["name"]
            try:
                await self._download(f"{of_collection}/{quote(made, safe='')}", target / f"{size.collection}{_SNAPSHOT}")
            finally:
                await self._asked("DELETE", f"{of_collection}/{quote(made, safe='')}")
            points[size.collection] = size.points
        return points

    async def put_back(self, source: Path, points: Mapping[str, int]) -> None:
        """Each collection as its snapshot has it, in the place of what is there. Raises OSError, VectorsUnavailable."""
        for collection in points:
            of_collection = f"/collections/{quote(self._store.name_of(collection), safe='')}/snapshots"
            with (source / f"{collection}{_SNAPSHOT}").open("rb") as snapshot:
                await self._asked(
                    "POST", f"{of_collection}/upload", params={"priority": "snapshot"}, files={"snapshot": snapshot}
                )

    async def _asked(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, files: Mapping[str, object] | None = None
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, params=params, files=files)  # type: ignore[arg-type]
        except httpx.HTTPError as error:
            raise VectorsUnavailable("Qdrant does not answer") from error
        if answer.is_error:
            raise VectorsUnavailable(f"Qdrant refuses a snapshot: {answer.status_code}")
        return answer

    async def _download(self, path: str, target: Path) -> None:
        try:
            async with self._http.stream("GET", path) as answer:
                if answer.is_error:
                    raise VectorsUnavailable(f"Qdrant refuses a snapshot: {answer.status_code}")
                with target.open("xb") as file:
                    async for chunk in answer.aiter_bytes(2**20):
                        file.write(chunk)
        except httpx.HTTPError as error:
            raise VectorsUnavailable("Qdrant does not answer") from error
        sync([target])
