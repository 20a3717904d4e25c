"""Which models answer, and which are indexed for: a change fills another edition in the background, and takes over at once.

Until then the edition that has all pictures goes on answering, and new pictures go into both. What was decided lies in the ledger.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress

import structlog

from core.errors import Conflict, ModelsDiffer, ModelUnavailable, NoModel, Unavailable
from core.ports import Embedder, VectorStore
from core.schemas import EngineState, ModelChange, ModelsAction, ModelsCourse, ModelsInfo
from watcher import editions
from watcher.editions import Course, Progress
from watcher.ledger import Ledger
from watcher.metrics import IngestionMetrics
from watcher.reconcile import VectorCheck

log = structlog.get_logger()

_PERIOD_S = 0.5
_QUIET_PERIOD_S = 10.0
"""Models that are not those of the settings are kept loaded for as long as somebody asks for them."""

_TOLD_EVERY_S = 10.0
_MEND_EVERY_S = 30.0
_LOOKS_WHILE_LOADING = 20


class Models:
    """`run` works until it is cancelled. `turned` hears of every new course, `lacking` that the vectors have fewer points than they must.

    Any number of processes look at the course; what it asks for is done by the one that `is_leading`.
    """

    def __init__(
        self,
        ledger: Ledger,
        embedder: Embedder,
        vectors: VectorStore,
        check: VectorCheck,
        metrics: IngestionMetrics,
        *,
        turned: Callable[[], None],
        lacking: Callable[[], None],
        is_leading: Callable[[], bool],
    ) -> None:
        self._ledger = ledger
        self._embedder = embedder
        self._vectors = vectors
        self._check = check
        self._metrics = metrics
        self._turned = turned
        self._lacking = lacking
        self._is_leading = is_leading
        self._course: Course | None = None
        self._configured: str | None = None
        self._gone: str | None = None
        self._progress = Progress(0, 0)
        self._told_at = self._mended_at = float("-inf")
        self._wake = asyncio.Event()

    async def begin(self) -> None:
        """Know what was decided before anybody asks."""
        self._course = await self._ledger.run(editions.course)

    @property
    def is_stopped(self) -> bool:
        """Whether only images that no models settled are to be claimed."""
        return self._course is not None and self._course.stopped

    # --- for whoever indexes

    async def target(self) -> ModelsInfo:
        """The models to index for. Raises ModelUnavailable.

        While several model services are of different models, as in a rolling update, those that the ledger has go on.
        """
        try:
            configured = _ready(await self._embedder.info())
        except ModelsDiffer:
            if self._course is None:
                raise
            return await self._of_course(self._course)
        if configured.fingerprint != self._configured:
            self._course, again = await self._ledger.run(editions.meet, configured, self._ledger.now())
            self._configured = configured.fingerprint
            self._wake.set()
            log.info("models_met", profile=configured.profile, images_to_index_again=again)
        course = self._course
        if course is None or course.target.fingerprint == configured.fingerprint:
            return configured
        return await self._of_course(course)

    async def _of_course(self, course: Course) -> ModelsInfo:
        info = await self._embedder.info(course.target.fingerprint)
        if info.state is EngineState.NO_MODEL:
            log.warning("models_gone", profile=course.target.profile, detail=info.notice)
            await self._ledger.run(editions.release)
            self._configured = None
        return _ready(info)

    async def former(self) -> ModelsInfo | None:
        """The models that answer while others are indexed for; None where there are none, or their weights are gone.

        Raises ModelUnavailable.
        """
        course = self._course
        if course is None or not course.is_changing:
            return None
        info = await self._embedder.info(course.searched.fingerprint)
        return None if info.state is EngineState.NO_MODEL else _ready(info)

    # --- for whoever searches and operates

    def course(self) -> ModelsCourse:
        """As it is now."""
        course = self._course
        if course is None:
            return ModelsCourse(searched=None, profile=None)
        answering = course.target if course.is_changing and self._gone is not None else course.searched
        previous = course.previous.profile if course.previous else None
        return ModelsCourse(
            searched=answering.fingerprint,
            profile=answering.profile,
            change=self._change(course, answering.profile) if course.is_changing else None,
            previous=previous,
            notice=self._notice(course) if course.is_changing else None,
        )

    def _change(self, course: Course, answering: str) -> ModelChange:
        done, left = self._progress.done, self._progress.left
        rate = self._metrics.rate_per_s()
        return ModelChange(
            profile=course.target.profile,
            answering=answering,
            done=done,
            total=done + left,
            stopped=course.stopped,
            eta_s=round(left / rate, 1) if left and rate and not course.stopped else None,
        )

    def _notice(self, course: Course) -> str | None:
        if self._gone is None:
            return None
        return (
            f"The models that answered until now ({course.searched.profile}) cannot be had any more: {self._gone}. "
            f"{course.target.profile} answers already, and finds more pictures as they are indexed for it."
        )

    async def turn(self, action: ModelsAction) -> ModelsCourse:
        """Raises Conflict, Unavailable."""
        match action:
            case ModelsAction.STOP:
                await self._ledger.run(editions.stop)
            case ModelsAction.RESUME:
                await self._ledger.run(editions.resume)
            case ModelsAction.REVERT:
                await self._check_way_back()
                await self._ledger.run(editions.revert, self._configured)
            case ModelsAction.DROP:
                await self._ledger.run(editions.drop)
        self._configured = None if action is ModelsAction.RESUME else self._configured
        await self._look()
        log.info("models_turned", action=action.value)
        self._turned()
        self._wake.set()
        return self.course()

    async def _check_way_back(self) -> None:
        """Raises Conflict if the models to go back to cannot be loaded."""
        course = self._course
        goal = None if course is None else course.searched if course.is_changing else course.previous
        for _ in range(_LOOKS_WHILE_LOADING if goal else 0):
            info = await self._embedder.info(goal.fingerprint if goal else None)
            if info.state is EngineState.NO_MODEL:
                raise Conflict(f"the models before cannot be had any more: {info.notice}")
            if info.state is EngineState.READY:
                return
            await asyncio.sleep(_PERIOD_S)

    # --- the change

    async def run(self) -> None:
        """Watch over the change, for ever."""
        while True:
            self._wake.clear()
            try:
                await self._look()
                await self._follow()
            except Unavailable as error:
                log.debug("models_unwatched", why=str(error))
            except Exception:
                log.exception("models_watch_failed")
            changing = self._course is not None and self._course.is_changing
            with suppress(TimeoutError):
                async with asyncio.timeout(_PERIOD_S if changing else _QUIET_PERIOD_S):
                    await self._wake.wait()

    async def _look(self) -> None:
        before, self._course = self._course, await self._ledger.run(editions.course)
        if before is not None and before != self._course:  # another process may have turned it
            self._turned()
        if self._course is not None and self._course.is_changing:
            self._progress = await self._ledger.run(editions.progress)

    async def _follow(self) -> None:
        """What the course asks for now."""
        course = self._course
        if course is None:
            return
        if course.searched.fingerprint != self._configured:
            info = await self._embedder.info(course.searched.fingerprint)
            self._note_gone(course, info.notice or "no weights" if info.state is EngineState.NO_MODEL else None)
        else:
            self._gone = None
        if not course.is_changing:
            if self._is_leading():
                await self._clear_up(course)
        elif self._is_leading() and await self._ledger.run(editions.is_covered):
            await self._take_over(course)
        elif time.monotonic() - self._told_at > _TOLD_EVERY_S:
            self._told_at = time.monotonic()
            log.info("model_change_progressed", **self._change(course, course.searched.profile).model_dump())

    def _note_gone(self, course: Course, gone: str | None) -> None:
        if gone is not None and self._gone is None:
            log.warning("models_gone", profile=course.searched.profile, detail=gone, answers_meanwhile=course.target.profile)
        self._gone = gone

    async def _take_over(self, course: Course) -> None:
        """What was counted is on the disk before the target answers."""
        info = _ready(await self._embedder.info(course.target.fingerprint))
        await self._vectors.flush()
        if not await self._check.holds_all(info):
            if time.monotonic() - self._mended_at > _MEND_EVERY_S:
                self._mended_at = time.monotonic()
                self._lacking()
            return
        if await self._ledger.run(editions.switch):
            await self._look()
            log.info("models_switched", profile=course.target.profile, before=course.searched.profile)
            self._turned()
            self._wake.set()

    async def _clear_up(self, course: Course) -> None:
        """Editions before the previous one go."""
        kept = {name for edition in (course.searched, course.previous) if edition for name in edition.collections}
        for edition in await self._ledger.run(editions.abandoned):
            for collection in edition.collections:
                if collection not in kept:
                    await self._vectors.drop(collection)
            await self._ledger.run(editions.forget, edition.fingerprint)
            log.info("edition_dropped", profile=edition.profile, fingerprint=edition.fingerprint)


def _ready(info: ModelsInfo) -> ModelsInfo:
    """Raises ModelUnavailable."""
    if info.state is EngineState.NO_MODEL:
        raise NoModel(info.notice or "no model weights are to be had")
    if info.state is not EngineState.READY:
        raise ModelUnavailable("the models are being loaded")
    return info
