"""Whether a search could be answered now, and if not, why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor

from core.errors import Unavailable
from core.ports import Catalog, Embedder, VectorStore
from core.room import Rooms
from core.schemas import EngineState, IngestionStatus, ModelsInfo, Repair, WatcherStatus
from searchsvc.schemas import HealthReport
from searchsvc.state import all_repairs, product_version

_PATIENCE_S = 3.0
_OK = "ok"
_PICTURES_AWAY = "the watched folder, or the bucket, is not there: nothing is forgotten meanwhile"


class Readiness:
    """Asks each part that searching needs, and the disks that taking in needs, all at once, with a time-out."""

    def __init__(
        self,
        *,
        embedder: Embedder,
        vectors: VectorStore,
        catalog: Catalog,
        rooms: Rooms,
        executor: Executor,
        repairs: Sequence[Repair] = (),
    ) -> None:
        self._rooms = rooms
        self._executor = executor
        self._embedder = embedder
        self._vectors = vectors
        self._catalog = catalog
        self._repairs = repairs
        self._version = product_version()

    async def report(self) -> HealthReport:
        models: list[ModelsInfo] = []
        ingestion: list[IngestionStatus] = []

        async def model() -> str:
            models.append(await self._embedder.info())
            return _said_by(models[0])

        async def vectors() -> str:
            await self._vectors.ping()
            return _OK

        async def catalog() -> str:
            ingestion.append(await self._catalog.status())
            return _OK

        async def disk() -> str:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._rooms.check)
            return _OK

        names = ("model", "vectors", "catalog", "disk")
        said = await asyncio.gather(_ask(model), _ask(vectors), _ask(catalog), _ask(disk))
        can_search, can_take_in = {*said[:3]} == {_OK}, said[3] == _OK
        info = models[0] if models else None
        away = _missing(ingestion[0].watcher) if ingestion else {}
        return HealthReport(
            status="unavailable" if not can_search else "ok" if can_take_in and not away else "degraded",
            checks={**dict(zip(names, said, strict=True)), **away},
            notice=info.notice if info else None,
            profile=info.profile if info else None,
            devices=tuple(sorted({card.device for card in info.models})) if info else (),
            images_indexed=ingestion[0].images.indexed if ingestion else None,
            repairs=all_repairs(self._repairs, ingestion[0] if ingestion else None),
            version=self._version,
        )


async def _ask(check: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await check()
    except Unavailable as error:
        return str(error)
    except TimeoutError:
        return "does not answer in time"


def _missing(watcher: WatcherStatus) -> dict[str, str]:
    """What ingestion waits for, and searches can do without."""
    pictures = {"pictures": _PICTURES_AWAY} if watcher.state == "folder_missing" else {}
    return {**pictures, "ingestion": watcher.waiting_for} if watcher.waiting_for else pictures


def _said_by(info: ModelsInfo) -> str:
    if info.state is EngineState.READY:
        return _OK
    return info.notice or {EngineState.LOADING: "loading", EngineState.NO_MODEL: "no model weights"}[info.state]
