"""A profile's models in memory: being loaded, ready, or not to be had, which is looked at again every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

import numpy as np
import structlog

from core.decode import Pixels
from core.errors import ModelUnavailable, NoModel
from core.schemas import EngineState, ModelsInfo, SegmentMode
from model_service.batching import BatchModel
from model_service.crops import WORKING_SIDE
from model_service.parts import Instance, Parts, Tensor

log = structlog.get_logger()

T = TypeVar("T")

LOOK_AGAIN_S = 10.0
_TEXT_BATCH = 32
_SEGMENT_BATCH = 4
_TIMES_ITS_INPUT = 1.5


@dataclass(frozen=True, slots=True)
class Loaded:
    """A profile with its parts wrapped for the dispatcher."""

    parts: Parts
    texts: BatchModel[str, Tensor]
    towers: tuple[BatchModel[Tensor, Tensor], ...]
    segmenters: dict[SegmentMode, BatchModel[Pixels, list[Instance]]]
    least_side: int
    """Pixels that the short side of a picture keeps when a JPEG is decoded at a fraction of its size."""

    @classmethod
    def of(cls, parts: Parts, *, embed_batch: int) -> Self:
        texts = BatchModel(f"{parts.spaces[0].collection}/text", _rows(parts.text_tower.embed_texts), _TEXT_BATCH)
        towers = tuple(
            BatchModel(f"{space.collection}/image", _rows(tower.embed), embed_batch, tower.at_once)
            for space, tower in zip(parts.spaces, parts.image_towers, strict=True)
        )
        segmenters: dict[SegmentMode, BatchModel[Pixels, list[Instance]]] = {}
        if parts.segmenter is not None:
            for mode in (SegmentMode.QUICK, SegmentMode.STANDARD, SegmentMode.FULL):
                name = f"{parts.segmenter.card.model_name}/{mode}"
                segmenters[mode] = BatchModel(name, _segmenting(parts, mode), _SEGMENT_BATCH, parts.segmenter.at_once)
        return cls(parts, texts, towers, segmenters, _least_side(parts))


def _rows(embed: Callable[[Sequence[T]], Tensor]) -> Callable[[Sequence[T]], Sequence[Tensor]]:
    return lambda inputs: list(embed(inputs))


def _least_side(parts: Parts) -> int:
    """Segments are cut out of the picture, and small ones should not be blurred; towers alone look at a small copy of it.

    From one and a half times a tower's own input on, vectors are as near to those of the full picture as from twice: cosines of
    0.994 and 0.995 over photos that were reduced to exactly that, and 0.986 at once its input.
    """
    if parts.segmenter is not None:
        return WORKING_SIDE // 2
    grey = np.full((64, 64, 3), 114, dtype=np.uint8)
    sides = [max(tower.prepare(grey).shape[1:], default=WORKING_SIDE) for tower in parts.image_towers]
    return min(WORKING_SIDE // 2, int(_TIMES_ITS_INPUT * max(sides)))


def _segmenting(parts: Parts, mode: SegmentMode) -> Callable[[Sequence[Pixels]], Sequence[list[Instance]]]:
    segmenter = parts.segmenter
    assert segmenter is not None  # noqa: S101 - the caller looked
    return lambda pictures: segmenter.segment(pictures, mode)


class Residence:
    """An async context manager that loads on a thread of its own. `load` blocks; it raises NoModel while there are no weights.

    `profile` is what it is called until it is loaded.
    """

    def __init__(
        self,
        load: Callable[[], Parts],
        *,
        profile: str,
        embed_batch: int,
        when_ready: Callable[[], None],
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        self._load = load
        self._look_again_s = look_again_s
        self._profile = profile
        self._embed_batch = embed_batch
        self._when_ready = when_ready
        self._state = EngineState.LOADING
        self._missing: str | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading: asyncio.Task[None] | None = None
        self.loaded: Loaded | None = None

    async def __aenter__(self) -> Self:
        self._loading = asyncio.create_task(self._keep_loading(), name="load-models")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._loading is not None:
            self._loading.cancel()
            with suppress(asyncio.CancelledError):
                await self._loading
        self._thread.shutdown(wait=False, cancel_futures=True)

    def info(self, requested: str) -> ModelsInfo:
        if self.loaded is None:
            return ModelsInfo(state=self._state, profile=self._profile, requested_profile=requested, notice=self._missing)
        parts = self.loaded.parts
        cards = [tower.card for tower in parts.image_towers] + ([parts.segmenter.card] if parts.segmenter else [])
        return ModelsInfo(
            state=EngineState.READY,
            profile=parts.profile,
            requested_profile=requested,
            notice=parts.notice,
            spaces=parts.spaces,
            models=tuple(cards),
            fingerprint=parts.fingerprint,
        )

    def ready(self) -> Loaded:
        """Raises NoModel, ModelUnavailable."""
        if self.loaded is not None:
            return self.loaded
        if self._state is EngineState.NO_MODEL:
            raise NoModel(self._missing or "no model is to be had", retry_after_s=LOOK_AGAIN_S)
        raise ModelUnavailable("the models are still being loaded", retry_after_s=2)

    async def _keep_loading(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                parts = await loop.run_in_executor(self._thread, self._loaded_or_why_not)
            except NoModel as error:
                if self._missing != str(error):
                    log.warning("models_missing", profile=self._profile, detail=str(error))
                self._state, self._missing = EngineState.NO_MODEL, str(error)
            except Exception:
                log.exception("models_failed_to_load", profile=self._profile)
                self._state = EngineState.NO_MODEL
                self._missing = "the weights in MODELS_DIR cannot be loaded; the log of the model service says why"
            else:
                self.loaded = Loaded.of(parts, embed_batch=self._embed_batch)
                self._when_ready()
                return
            await asyncio.sleep(self._look_again_s)

    def _loaded_or_why_not(self) -> Parts:
        try:
            return self._load_and_warm_up()
        except Exception:
            raise
        except (
            BaseException
        ) as error:  # a panic in Rust, or a library that would end the process: it would end the task that loads
            raise RuntimeError(f"loading ended by {error!r}") from error

    def _load_and_warm_up(self) -> Parts:
        """The first pass of a runtime allocates and compiles; it is made before anybody waits for it."""
        parts = self._load()
        grey = np.full((480, 640, 3), 114, dtype=np.uint8)
        parts.text_tower.embed_texts(["a picture"])
        for tower in parts.image_towers:
            tower.embed([tower.prepare(grey)])
        if parts.segmenter is not None:
            parts.segmenter.segment([grey], SegmentMode.STANDARD)
        log.info("models_loaded", profile=parts.profile, models=[tower.card.source for tower in parts.image_towers])
        return parts
