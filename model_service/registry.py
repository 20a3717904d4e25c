"""A profile by name to its loaded parts: found on disk or fetched, and said in the notice what is not as asked for.

`auto` is `clip` where that can be had, else `starter`. Blocking, seconds to minutes: called on the engine's loading thread.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import structlog

from core.errors import NoModel
from model_service import profiles
from model_service.parts import ImageTower, Parts, Segmenter, TextTower
from model_service.profiles import NONE, SegmenterEntry, TowerEntry
from model_service.sources import Checkpoint, NotFetched, Sources

log = structlog.get_logger()

PIPELINE_VERSION = 1
"""Part of the fingerprint: raised when crops, masks or preprocessing change what comes out."""
_SEGMENTERS = ("yoloe-26s-seg-pf.pt", "yoloe-11s-seg-pf.pt")
_RETRY_AFTER_S = 10.0

LoadedT = TypeVar("LoadedT")


@dataclass(frozen=True, slots=True)
class Choice:
    """What the settings ask for."""

    profile: str
    models_dir: Path
    clip_model: str
    image_model: str
    segmenter: str
    device: str
    threads: int
    hub_timeout_s: float
    max_segments: int
    min_score: float


@dataclass(frozen=True, slots=True)
class _Towers:
    image: ImageTower
    text: TextTower | None = None


def load(choice: Choice, *, may_fetch: bool, tell: Callable[[str], None]) -> Parts:
    """Find, fetch if need be, and load. `tell` gets a line on what takes long. Raises NoModel, whose message says what to do."""
    loading = _Loading(choice, may_fetch=may_fetch, tell=tell)
    if choice.profile not in {"auto", "clip"}:
        return loading.folder_profile(choice.profile)
    try:
        return loading.clip()
    except NoModel as error:
        if choice.profile == "clip" or not profiles.is_profile(profiles.starter_folder()):
            raise
        log.warning("profile_fell_back", wanted="clip", used="starter", why=str(error))
        loading.notices.append(f"The project's small starter model answers, since CLIP is not to be had. {error}")
        return loading.folder_profile("starter")


class _Loading:
    """One attempt. The network is given up at its first failure, so that an offline start waits for it once."""

    def __init__(self, choice: Choice, *, may_fetch: bool, tell: Callable[[str], None]) -> None:
        self.notices: list[str] = []
        self._choice = choice
        self._network = may_fetch
        self._tell = tell
        self._sources = Sources(choice.models_dir, choice.hub_timeout_s, tell)
        self._threads = choice.threads or os.cpu_count() or 1

    def clip(self) -> Parts:
        """The profile `clip`. Raises NoModel when its dual encoder cannot be had; the other parts may be missing."""
        text, image = self._dual_encoder(TowerEntry(model=self._choice.clip_model), self._choice.models_dir)
        return self._assembled(
            "clip", text, image, self._image_tower_of_settings(), self._segmenter(None, self._choice.models_dir)
        )

    def folder_profile(self, name: str) -> Parts:
        """A profile that is a folder. Raises NoModel."""
        shipped = name == "starter"
        self._network = self._network and not shipped  # starter promises that nothing is downloaded
        folder = profiles.starter_folder() if shipped else self._choice.models_dir / name
        profile = profiles.read(folder, name)
        text, image = self._dual_encoder(profile.embedder, folder)
        image_tower = self._towers(profile.image_embedder, folder, text=False).image if profile.image_embedder else None
        return self._assembled(name, text, image, image_tower, self._segmenter(profile.segmenter, folder))

    def _dual_encoder(self, entry: TowerEntry, folder: Path) -> tuple[TextTower, ImageTower]:
        towers = self._towers(entry, folder, text=True)
        if towers.text is None:
            raise NoModel(
                f"{entry.model} embeds pictures only, so nothing could be found by words.", retry_after_s=_RETRY_AFTER_S
            )
        return towers.text, towers.image

    def _towers(self, entry: TowerEntry, folder: Path, *, text: bool) -> _Towers:
        """Raises NoModel."""
        beside = folder / entry.model
        if entry.loader == "onnx":
            return _loaded(entry.model, lambda: self._onnx_towers(beside, entry.name))
        checkpoint = self._sources.folder(str(beside)) or self._sources.folder(entry.model) or self._fetched(entry.model)
        return _loaded(entry.model, lambda: self._transformers_towers(checkpoint, entry.name, text=text))

    def _onnx_towers(self, folder: Path, name: str | None) -> _Towers:
        from model_service import onnx_towers  # noqa: PLC0415 - a runtime is imported when a profile needs it, after serving began

        text, image = onnx_towers.load(folder, name=name, threads=self._threads)
        return _Towers(image, text)

    def _transformers_towers(self, checkpoint: Checkpoint, name: str | None, *, text: bool) -> _Towers:
        from model_service import devices, transformers_towers  # noqa: PLC0415 - as above

        self._tell(f"loading {checkpoint.name}")
        device = devices.chosen(self._choice.device, self._threads)
        if not text:
            return _Towers(transformers_towers.load_image_tower(checkpoint, device, name))
        text_tower, image_tower = transformers_towers.load_dual_encoder(checkpoint, device, name)
        return _Towers(image_tower, text_tower)

    def _fetched(self, name: str) -> Checkpoint:
        """Raises NoModel."""
        why = "they are not on this disk"
        if self._network:
            try:
                return self._sources.fetched_folder(name)
            except NotFetched as error:
                self._network = False
                why = str(error)
        shown = Path(name).name if Path(name).is_absolute() else name
        text = (
            f"No weights of {shown}: {why}. Put a checkpoint folder (config.json, weights, tokenizer, preprocessor) at "
            f"MODELS_DIR/{shown}, or connect this machine to the Hugging Face hub; it is looked for again every few seconds."
        )
        raise NoModel(text, retry_after_s=_RETRY_AFTER_S)

    def _image_tower_of_settings(self) -> ImageTower | None:
        """Pictures are found without it, so its absence is only noticed."""
        name = self._choice.image_model
        if name == NONE:
            return None
        try:
            return self._towers(TowerEntry(model=name), self._choice.models_dir, text=False).image
        except NoModel as error:
            self._notice("image_model_missing", f"The image-only model is missing: {error}")
            return None

    def _segmenter(self, entry: SegmenterEntry | None, folder: Path) -> Segmenter | None:
        """The profile's own or that of the settings; pictures are found without one, so its absence is only noticed."""
        name = entry.model if entry else self._choice.segmenter
        if name == NONE:
            return None
        beside = self._sources.segmenter(str(folder / name)) if entry else None
        checkpoint = beside or self._segmenter_checkpoint(name)
        if checkpoint is None:
            return None
        try:
            return _loaded(checkpoint.name, lambda: self._loaded_segmenter(checkpoint))
        except NoModel as error:
            self._notice("segmenter_unusable", f"Segments are not to be had: {error}")
            return None

    def _segmenter_checkpoint(self, name: str) -> Checkpoint | None:
        names = dict.fromkeys((name, *_SEGMENTERS)) if name in _SEGMENTERS else (name,)
        found = next((checkpoint for each in names if (checkpoint := self._sources.segmenter(each))), None)
        if found is None and name in _SEGMENTERS:
            found = self._sources.any_segmenter()
        if found is None:
            found = self._fetched_segmenter(list(names))
        if found is not None and found.name != Path(name).name:
            self._notice("segmenter_replaced", f"{found.name} segments, since {name} is not to be had.")
        return found

    def _fetched_segmenter(self, names: list[str]) -> Checkpoint | None:
        why = "it is not on this disk"
        for name in names if self._network else []:
            try:
                return self._sources.fetched_segmenter(name)
            except NotFetched as error:
                why = str(error)
        self._network = False
        text = f"Pictures are not cut into segments: no {names[0]} ({why}). Put a YOLOE or YOLO-seg checkpoint into MODELS_DIR and restart."
        self._notice("segmenter_missing", text)
        return None

    def _loaded_segmenter(self, checkpoint: Checkpoint) -> Segmenter:
        from model_service import devices, segmenter  # noqa: PLC0415 - as above

        self._tell(f"loading {checkpoint.name}")
        limits = segmenter.SegmentLimits(self._choice.max_segments, self._choice.min_score)
        return segmenter.load(checkpoint, device=devices.chosen(self._choice.device, self._threads), limits=limits)

    def _notice(self, event: str, text: str) -> None:
        log.warning(event, detail=text)
        self.notices.append(text)

    def _assembled(
        self, profile: str, text: TextTower, image: ImageTower, second: ImageTower | None, segmenter: Segmenter | None
    ) -> Parts:
        image_towers = (image, second) if second else (image,)
        cards = [tower.card for tower in image_towers] + ([segmenter.card] if segmenter else [])
        made_by: list[object] = [PIPELINE_VERSION, self._choice.max_segments, self._choice.min_score]
        made_by += [f"{card.model_name} {card.source} {card.revision}" for card in cards]
        return Parts(
            profile=profile,
            text_tower=text,
            image_towers=image_towers,
            segmenter=segmenter,
            notice=" ".join(self.notices) or None,
            fingerprint=hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16],
        )


def _loaded(name: str, loader: Callable[[], LoadedT]) -> LoadedT:
    """Weights that are there but cannot be loaded are as good as none. Raises NoModel."""
    try:
        return loader()
    except NoModel:
        raise
    except Exception as error:
        log.exception("model_load_failed", model=name)
        text = f"The weights of {name} cannot be loaded ({type(error).__name__}); replace them. The log says more."
        raise NoModel(text, retry_after_s=_RETRY_AFTER_S) from error
