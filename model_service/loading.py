"""Checkpoints on disk to loaded parts: over an export where the machine's runtime wants one, else in torch.

Blocking, and the first time minutes: called on the loading thread only. Every method raises what the libraries raise for a damaged checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from core.threads import ThreadBudget
from model_service.exports import Export, Exports, Kind, NotExported, Pooling
from model_service.parts import Segmenter
from model_service.runtimes import Choice, Machine, chosen
from model_service.settings import ModelSettings
from model_service.towers import PictureTower, TwoTowers
from model_service.weights import Checkpoint

if TYPE_CHECKING:
    from model_service.compiling import Compiling

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loader:
    """For one choice of runtime."""

    choice: Choice
    exports: Exports
    models_dir: Path
    largest_batch: int

    @classmethod
    def of(cls, settings: ModelSettings) -> Loader:
        """Raises UnusableRuntime."""
        machine = Machine.found()
        choice = chosen(settings, machine)
        exports = Exports(settings.models_dir, settings.images_dir, choice, can_quantise=machine.quantiser)
        return cls(choice, exports, settings.models_dir, settings.embed_batch)

    def two_towers(self, images: Checkpoint, words: Checkpoint, pooling: Pooling | None, *, name: str) -> TwoTowers:
        """`words` is `images` again, or a checkpoint of its own with its `pooling`."""
        found = self._exported(("images", images, None), ("words", words, pooling))
        if found:
            from model_service import exported  # noqa: PLC0415 - a runtime is imported when it is used

            return exported.two_towers(found[0], found[1], images, words, model_name=name, threads=self._threads)
        from model_service import encoders  # noqa: PLC0415 - as above

        device, precision = encoders.chosen_device(self.choice.device, self.choice.threads), self.choice.in_torch
        if pooling is None:
            return encoders.load_dual_encoder(
                images, device=device, model_name=name, precision=precision, compiling=self._compiling
            )
        return encoders.load_two_towers(
            images, words, pooling=pooling, device=device, model_name=name, precision=precision, compiling=self._compiling
        )

    def image_tower(self, checkpoint: Checkpoint, *, name: str) -> PictureTower:
        found = self._exported(("images", checkpoint, None))
        if found:
            from model_service import exported  # noqa: PLC0415 - as above

            return exported.image_tower(found[0], checkpoint, model_name=name, threads=self._threads)
        from model_service import encoders  # noqa: PLC0415 - as above

        device = encoders.chosen_device(self.choice.device, self.choice.threads)
        return encoders.load_image_tower(
            checkpoint, device=device, model_name=name, precision=self.choice.in_torch, compiling=self._compiling
        )

    def segmenter(self, checkpoint: Checkpoint, *, max_segments: int, min_score: float) -> Segmenter:
        found = self._exported(("segments", checkpoint, None))
        if found:
            from model_service import exported  # noqa: PLC0415 - as above

            return exported.segmenter(found[0], checkpoint, max_segments=max_segments, min_score=min_score, threads=self._threads)
        from model_service import encoders, segmenter  # noqa: PLC0415 - as above

        device, precision = encoders.chosen_device(self.choice.device, self.choice.threads), self.choice.in_torch
        return segmenter.load(checkpoint, device=device, max_segments=max_segments, min_score=min_score, precision=precision)

    @property
    def _compiling(self) -> Compiling | None:
        if not self.choice.compiles:
            return None
        from model_service.compiling import Compiling  # noqa: PLC0415 - as above

        return Compiling(self.models_dir / "compiled", self.largest_batch)

    @property
    def _threads(self) -> ThreadBudget:
        return ThreadBudget.of(self.choice.threads)

    def _exported(self, *parts: tuple[Kind, Checkpoint, Pooling | None]) -> list[Export]:
        """Empty where torch is to be used."""
        if not self.choice.exported:
            return []
        try:
            return self.exports.have(*(self.exports.wanted(kind, one, pooling=pooling) for kind, one, pooling in parts))
        except NotExported as error:
            log.warning("export_missing", model=parts[0][1].name, used="torch", detail=str(error))
            return []
