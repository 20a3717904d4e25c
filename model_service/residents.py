"""The models of the settings, and beside them those of before for as long as they are asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

import structlog

from core.errors import ModelUnavailable
from core.schemas import EngineState
from model_service import served
from model_service.parts import Parts
from model_service.residence import Residence
from model_service.served import Choice, Load
from model_service.settings import ModelSettings

log = structlog.get_logger()

_MOST_BESIDE = 2
"""Of before: those that answer, and those that a revert goes back to."""

_KEPT_S = 120.0
"""Whoever needs them asks every few seconds."""

_LOOK_S = 10.0
_LOOK_AGAIN_S = 300.0
"""Whether weights are the same as before is known only when they are loaded."""


@dataclass(slots=True)
class _Beside:
    residence: Residence
    asked_at: float


class Residents:
    """An async context manager."""

    def __init__(
        self,
        settings: ModelSettings,
        load: Load,
        *,
        when_ready: Callable[[], None],
        kept_s: float = _KEPT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._load = load
        self._kept_s = kept_s
        self._clock = clock
        self.own = Residence(
            self._load_own, profile=settings.model_profile, embed_batch=settings.embed_batch, when_ready=when_ready
        )
        self._beside: dict[str, _Beside] = {}
        self._changing = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.own.__aenter__()
        self._looking = asyncio.create_task(self._keep_looking(), name="forget-models")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
        for beside in self._beside.values():
            await beside.residence.__aexit__(None, None, None)
        await self.own.__aexit__(None, None, None)

    async def of(self, fingerprint: str | None) -> Residence:
        """The models of this fingerprint, which begin to be loaded if they are not. Raises ModelUnavailable: there are too many."""
        if fingerprint is None or self._is_own(fingerprint):
            return self.own
        beside = self._beside.get(fingerprint) or await self._added(fingerprint)
        beside.asked_at = self._clock()
        return beside.residence

    async def _added(self, fingerprint: str) -> _Beside:
        """Raises ModelUnavailable."""
        async with self._changing:
            if fingerprint in self._beside:  # whoever asked at the same moment was first
                return self._beside[fingerprint]
            if len(self._beside) >= _MOST_BESIDE:
                await self._forget(least_s=_LOOK_S)
            if len(self._beside) >= _MOST_BESIDE:
                raise ModelUnavailable(
                    "models of before are loaded already, and there is room for no more", retry_after_s=_LOOK_S
                )
            self._beside[fingerprint] = await self._begun(fingerprint)
            return self._beside[fingerprint]

    async def _begun(self, fingerprint: str) -> _Beside:
        record = await asyncio.to_thread(served.recall, self._settings.models_dir, fingerprint)
        residence = Residence(
            partial(served.load_again, self._settings, fingerprint, self._load),
            profile=record.profile if record else "unknown",
            embed_batch=self._settings.embed_batch,
            when_ready=lambda: log.info("models_of_before_loaded", fingerprint=fingerprint),
            look_again_s=_LOOK_AGAIN_S,
        )
        return _Beside(await residence.__aenter__(), self._clock())

    def _is_own(self, fingerprint: str) -> bool:
        """While the settings' models are being loaded, those are taken for them that the same settings came to."""
        if self.own.loaded is not None:
            return self.own.loaded.parts.fingerprint == fingerprint
        if self.own.info("").state is not EngineState.LOADING:
            return False
        record = served.recall(self._settings.models_dir, fingerprint)
        return record is not None and record.choice == Choice.of(self._settings)

    def _load_own(self) -> Parts:
        parts = self._load(self._settings)
        served.remember(self._settings, parts)
        return parts

    async def forget(self, *, least_s: float) -> None:
        """Let go of what nobody asked for in so many seconds."""
        async with self._changing:
            await self._forget(least_s=least_s)

    async def _forget(self, *, least_s: float) -> None:
        before = self._clock() - least_s
        for fingerprint in [one for one, beside in self._beside.items() if beside.asked_at <= before]:
            residence = self._beside.pop(fingerprint).residence
            await residence.__aexit__(None, None, None)
            if residence.loaded is not None:
                log.info("models_of_before_released", fingerprint=fingerprint)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(min(_LOOK_S, self._kept_s))
            await self.forget(least_s=self._kept_s)
