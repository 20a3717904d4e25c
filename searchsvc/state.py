"""Where everything stands: the folder, the models, in one answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from core.errors import Unavailable
from core.ports import Catalog, Embedder
from core.schemas import IngestionStatus, ModelsInfo, Repair
from searchsvc.schemas import StatusAnswer

_PATIENCE_S = 3.0


def product_version() -> str:
    try:
        return version("imagesearch")
    except PackageNotFoundError:
        return "unknown"


def all_repairs(own: Sequence[Repair], ingestion: IngestionStatus | None) -> tuple[Repair, ...]:
    """Those of the watcher and of this service, each once."""
    told = {repair.kept_as: repair for repair in (*(ingestion.watcher.repairs if ingestion else ()), *own)}
    return tuple(sorted(told.values(), key=lambda repair: repair.found_at))


class StatusReader:
    def __init__(self, *, catalog: Catalog, embedder: Embedder, writing_needs_key: bool, repairs: Sequence[Repair] = ()) -> None:
        """`repairs`: what was mended in this service's folder, which may be the watcher's as well."""
        self._catalog = catalog
        self._embedder = embedder
        self._writing_needs_key = writing_needs_key
        self._repairs = repairs
        self._version = product_version()

    async def read(self) -> StatusAnswer:
        """Answers without the model service, too, and says so. Raises CatalogUnavailable."""
        ingestion, models = await asyncio.gather(self._catalog.status(), self._models())
        said = models if isinstance(models, str) else models.notice
        info = None if isinstance(models, str) else models
        return StatusAnswer(
            images=ingestion.images,
            segments=ingestion.segments,
            rate_per_s=ingestion.rate_per_s,
            eta_s=ingestion.eta_s,
            watcher=ingestion.watcher.model_copy(update={"repairs": all_repairs(self._repairs, ingestion)}),
            model_change=ingestion.model_change,
            models=info.models if info else (),
            spaces=info.spaces if info else (),
            model_state=info.state if info else "unavailable",
            profile=info.profile if info else None,
            notice=said,
            writing_needs_key=self._writing_needs_key,
            version=self._version,
        )

    async def _models(self) -> ModelsInfo | str:
        """What is loaded, or why nobody can tell."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._embedder.info()
        except Unavailable as error:
            return str(error)
        except TimeoutError:
            return "the model service does not answer in time"
