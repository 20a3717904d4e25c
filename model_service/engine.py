"""The models' life: loading, ready or without weights; admission; and the two questions that are asked of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self, TypeVar

import structlog

from core.errors import ModelUnavailable, NoModel, Overloaded
from core.schemas import EngineState, ImageAnalysis, ModelsInfo, Priority, SegmentMode, TextEmbeddings
from model_service.analysis import Bounds, Pipeline, running_pipeline
from model_service.batching import BatchObserver
from model_service.parts import Parts

log = structlog.get_logger()

ResultT = TypeVar("ResultT")


class EngineObserver(BatchObserver, Protocol):
    """Told of the requests too."""

    def request_admitted(self, priority: Priority) -> None: ...

    def request_left(self, priority: Priority) -> None: ...

    def request_refused(self, priority: Priority) -> None: ...

    def became_ready(self) -> None: ...


class Loader(Protocol):
    """Blocking. Raises NoModel."""

    def __call__(self, *, may_fetch: bool, tell: Callable[[str], None]) -> Parts: ...


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds."""

    request_timeout_s: float = 120.0
    retry_s: float = 10.0
    """How often the disk is looked at again while there is no model."""
    fetch_every: int = 30
    """Of so many looks, one asks the network too."""
    watch_s: float = 1.0


class Engine:
    """An async context manager; it loads in the background, and answers NoModel or ModelUnavailable until it is ready.

    `on_hang` is called when one batch has been running for longer than a request may take: a thread in native code cannot
    be ended, so only a new process helps.
    """

    def __init__(
        self,
        loader: Loader,
        *,
        requested_profile: str,
        bounds: Bounds,
        timing: Timing,
        observer: EngineObserver,
        on_hang: Callable[[], None],
    ) -> None:
        self._loader = loader
        self._requested_profile = requested_profile
        self._bounds = bounds
        self._timing = timing
        self._observer = observer
        self._on_hang = on_hang
        self._stack = AsyncExitStack()
        self._pipeline: Pipeline | None = None
        self._state = EngineState.LOADING
        self._notice: str | None = None
        self._admitted = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="load")

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._load(), name="load"), asyncio.create_task(self._watch(), name="watch")]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._executor.shutdown(wait=False, cancel_futures=True)
        await self._stack.aclose()

    def info(self) -> ModelsInfo:
        if self._pipeline is None:
            profile = self._requested_profile
            return ModelsInfo(state=self._state, profile=profile, requested_profile=profile, notice=self._notice)
        parts = self._pipeline.parts
        cards = [tower.card for tower in parts.image_towers] + ([parts.segmenter.card] if parts.segmenter else [])
        return ModelsInfo(
            state=EngineState.READY,
            profile=parts.profile,
            requested_profile=self._requested_profile,
            notice=parts.notice,
            spaces=tuple(tower.space for tower in parts.image_towers),
            models=tuple(cards),
            fingerprint=parts.fingerprint,
        )

    @asynccontextmanager
    async def admitted(self, priority: Priority) -> AsyncIterator[None]:
        """A place for one picture, to be taken before its bytes are read. Raises Overloaded, NoModel, ModelUnavailable.

        A quarter of the places is for queries alone, so that a full ingestion refuses no search.
        """
        self._ready()
        limit = self._bounds.queue_limit if priority is Priority.QUERY else max(1, self._bounds.queue_limit * 3 // 4)
        if self._admitted >= limit:
            self._observer.request_refused(priority)
            raise Overloaded("the model service has as many pictures as it can take", retry_after_s=2.0)
        self._admitted += 1
        self._observer.request_admitted(priority)
        try:
            yield
        finally:
            self._admitted -= 1
            self._observer.request_left(priority)

    async def analyse(self, image: bytes, segments: SegmentMode, priority: Priority) -> ImageAnalysis:
        """To be called within `admitted`. Raises ImageRejected, Overloaded when its turn does not come in time."""
        return await self._in_time(self._ready().analyse(image, segments, priority))

    async def embed_texts(self, texts: Sequence[str], priority: Priority) -> TextEmbeddings:
        """Raises Overloaded, NoModel, ModelUnavailable."""
        pipeline = self._ready()
        vectors = await self._in_time(pipeline.embed_texts(texts, priority))
        return TextEmbeddings(space=pipeline.parts.text_tower.space, vectors=tuple(vectors))

    def _ready(self) -> Pipeline:
        if self._pipeline is not None:
            return self._pipeline
        if self._state is EngineState.NO_MODEL:
            raise NoModel(self._notice or "there is no model", retry_after_s=self._timing.retry_s)
        raise ModelUnavailable("the models are still being loaded", retry_after_s=2.0)

    async def _in_time(self, work: Awaitable[ResultT]) -> ResultT:
        try:
            async with asyncio.timeout(self._timing.request_timeout_s):
                return await work
        except TimeoutError:
            raise Overloaded("the model service could not answer in time") from None

    async def _load(self) -> None:
        """Until it is ready: load, or look again later."""
        attempt = 0
        while self._pipeline is None:
            parts = await self._attempt(may_fetch=attempt % self._timing.fetch_every == 0)
            attempt += 1
            if parts is None:
                await asyncio.sleep(self._timing.retry_s)
                continue
            self._pipeline = await self._stack.enter_async_context(running_pipeline(parts, self._bounds, self._observer))
            self._state, self._notice = EngineState.READY, None
            self._observer.became_ready()
            log.info("models_ready", profile=parts.profile, spaces=[tower.space.collection for tower in parts.image_towers])

    async def _attempt(self, *, may_fetch: bool) -> Parts | None:
        loop = asyncio.get_running_loop()

        def tell(line: str) -> None:
            loop.call_soon_threadsafe(self._tell, line)

        def load() -> Parts:
            return self._loader(may_fetch=may_fetch, tell=tell)

        try:
            return await loop.run_in_executor(self._executor, load)
        except NoModel as error:
            if self._notice != str(error):
                log.warning("no_model", detail=str(error))
            self._state, self._notice = EngineState.NO_MODEL, str(error)
        except Exception:
            log.exception("load_failed")
            self._state, self._notice = EngineState.NO_MODEL, "The models cannot be loaded; the log says why."
        return None

    def _tell(self, line: str) -> None:
        if self._state is EngineState.LOADING:
            self._notice = line

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._timing.watch_s)
            if self._pipeline is not None and self._pipeline.busy_s > self._timing.request_timeout_s:
                log.critical("model_hung", busy_s=round(self._pipeline.busy_s))
                self._on_hang()
