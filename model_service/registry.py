"""A profile by name to its loaded parts: found on disk or fetched, and said in the notice what is not as asked for.

`auto` is `clip` where that can be had, else `starter`. Blocking, seconds to minutes: called on the engine's loading thread.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import structlog

from core.errors import NoModel
from core.schemas import Space
from core.threads import ThreadBudget, usable_cores
from model_service import profile_toml
from model_service.extras import NotInstalled, require
from model_service.parts import ImageTower, Parts, Segmenter, TextTower
from model_service.profile_toml import DESCRIPTION, EmbedderEntry, ImageEntry, SegmenterEntry
from model_service.runtimes import UnusableRuntime
from model_service.settings import ModelSettings
from model_service.weights import NotFetched, Weights, base_name, public_name

if TYPE_CHECKING:
    from model_service.loading import Loader

log = structlog.get_logger()

STARTER = Path(__file__).parent / "starter"
"""Where the repository ships its own small model; the folder may be absent."""
CODE_VERSION = 2
"""Part of the fingerprint: raised when crops, masks or preprocessing change what comes out."""
_NONE = "none"
_RETRY_AFTER_S = 10.0

LoadedT = TypeVar("LoadedT")


class DualEncoder(ImageTower, TextTower, Protocol):
    """Words and pictures into one space."""


def load(settings: ModelSettings, *, starter: Path = STARTER) -> Parts:
    """Find, fetch if need be, and load what MODEL_PROFILE names. Raises NoModel, whose message says what to do."""
    try:
        return _profile(settings, starter)
    except NoModel as error:
        raise NoModel(f"{error} This is looked at again every few seconds.", retry_after_s=_RETRY_AFTER_S) from error


def _profile(settings: ModelSettings, starter: Path) -> Parts:
    """Raises NoModel."""
    profile = settings.model_profile
    if profile not in {"auto", "clip"}:
        return _folder_profile(settings, profile, starter)
    try:
        return _Loading(settings, starter).clip()
    except NoModel as error:
        if profile == "clip" or not (starter / DESCRIPTION).is_file():
            raise
        log.warning("profile_fell_back", wanted="clip", used="starter", detail=str(error))
        fallback = f"FALLBACK: the small starter model answers, less well than CLIP would. {error} Then restart."
        return _Loading(settings, starter, may_fetch=False, notices=[fallback]).folder("starter", starter)


def _folder_profile(settings: ModelSettings, profile: str, starter: Path) -> Parts:
    """Raises NoModel."""
    if profile != "starter":
        return _Loading(settings, starter).folder(profile, settings.models_dir / profile)
    if not (starter / DESCRIPTION).is_file():
        text = "This installation ships no starter model: set MODEL_PROFILE to clip, auto or the name of a folder in MODELS_DIR."
        raise NoModel(text, retry_after_s=_RETRY_AFTER_S)
    return _Loading(settings, starter, may_fetch=False).folder("starter", starter)  # starter promises that nothing is downloaded


class _Loading:
    """One attempt at one profile; gathers the notices on its way."""

    def __init__(
        self, settings: ModelSettings, starter: Path, *, may_fetch: bool = True, notices: list[str] | None = None
    ) -> None:
        self._settings = settings
        self._starter = starter
        self._weights = Weights(settings.models_dir, hub_timeout_s=settings.hub_timeout_s, may_fetch=may_fetch)
        self._threads = ThreadBudget.of(settings.model_threads or usable_cores())
        self._notices = notices or []

    def clip(self) -> Parts:
        """Raises NoModel when the dual encoder cannot be had; the other parts may be missing."""
        models_dir = self._settings.models_dir
        dual = self._dual_encoder(EmbedderEntry(model=self._settings.clip_model, name="CLIP"), models_dir)
        image = None
        if self._settings.image_model != _NONE:
            image = self._optional_image_tower(ImageEntry(model=self._settings.image_model, name="ResNet"), models_dir)
        return self._assembled("clip", dual, image, self._segmenter(None, models_dir))

    def folder(self, name: str, folder: Path) -> Parts:
        """As `clip`, of a folder."""
        profile = profile_toml.read(folder, name)
        dual = self._dual_encoder(profile.embedder, folder)
        image = self._optional_image_tower(profile.image_embedder, folder) if profile.image_embedder else None
        return self._assembled(name, dual, image, self._segmenter(profile.segmenter, folder))

    def _dual_encoder(self, entry: EmbedderEntry, folder: Path) -> DualEncoder:
        """Raises NoModel."""
        beside = folder / entry.model
        if entry.model == profile_toml.STARTER and not beside.exists():
            return _loaded(entry.model, lambda: self._onnx(self._starter, entry.name))
        if entry.loader == "onnx" or (entry.loader is None and (beside / DESCRIPTION).is_file()):
            return _loaded(entry.model, lambda: self._onnx(beside, entry.name))
        return _loaded(entry.model, lambda: self._transformers_dual(entry, folder))

    def _optional_image_tower(self, entry: ImageEntry, folder: Path) -> ImageTower | None:
        try:
            return _loaded(entry.model, lambda: self._transformers_image(entry, folder))
        except NoModel as error:
            self._notice("image_model_missing", f"Pictures are compared without the image-only model. {error}")
            return None

    def _onnx(self, folder: Path, name: str | None) -> DualEncoder:
        from model_service import onnx_encoder  # noqa: PLC0415 - a runtime is imported when a profile needs it, after serving began

        return onnx_encoder.load(folder, model_name=name, threads=self._threads.inference, passes=self._threads.passes)

    def _transformers_dual(self, entry: EmbedderEntry, folder: Path) -> DualEncoder:
        require("torch", "transformers")
        checkpoint = self._weights.folder(_beside(folder, entry.model))
        words = self._weights.folder(_beside(folder, entry.text.model)) if entry.text else checkpoint
        pooling = entry.text.pooling if entry.text else None
        return self._loader().two_towers(checkpoint, words, pooling, name=entry.name or base_name(entry.model))

    def _transformers_image(self, entry: ImageEntry, folder: Path) -> ImageTower:
        require("torch", "transformers")
        checkpoint = self._weights.folder(_beside(folder, entry.model))
        return self._loader().image_tower(checkpoint, name=entry.name or base_name(entry.model))

    def _loader(self) -> Loader:
        """Raises UnusableRuntime."""
        from model_service.loading import Loader  # noqa: PLC0415 - as above

        return Loader.of(self._settings)

    def _segmenter(self, entry: SegmenterEntry | None, folder: Path) -> Segmenter | None:
        """The profile's own, or that of the settings; pictures are found without one, so its absence is only noticed."""
        wanted = entry.model if entry else self._settings.segmenter
        if wanted == _NONE:
            return None
        shown = base_name(wanted)
        try:
            require("torch", "ultralytics")
            checkpoint = self._weights.segmenter(_beside(folder, wanted))
        except NotInstalled as error:
            self._notice("segmenter_not_installed", f"Pictures are not cut into segments by {shown}: {error}.")
            return None
        except NotFetched as error:
            advice = "Put a YOLOE or YOLO-seg checkpoint into MODELS_DIR and restart."
            self._notice("segmenter_missing", f"Pictures are not cut into segments: no {shown}, {error}. {advice}")
            return None
        if checkpoint.name != shown:
            self._notice("segmenter_replaced", f"{checkpoint.name} finds the segments, since {shown} is not in MODELS_DIR.")
        try:
            kept, least = self._settings.max_segments, self._settings.segment_min_score
            return self._loader().segmenter(checkpoint, max_segments=kept, min_score=least)
        except UnusableRuntime as error:
            self._notice("segmenter_unusable", f"Pictures are not cut into segments: {error}.")
            return None
        except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
            log.warning("segmenter_load_failed", model=checkpoint.name, error=repr(error))
            self._notice(
                "segmenter_unusable", f"Pictures are not cut into segments: {checkpoint.name} cannot be loaded; replace it."
            )
            return None

    def _notice(self, event: str, text: str) -> None:
        log.warning(event, detail=text)
        self._notices.append(text)

    def _assembled(self, profile: str, dual: DualEncoder, image: ImageTower | None, segmenter: Segmenter | None) -> Parts:
        towers: tuple[ImageTower, ...] = (dual, image) if image else (dual,)
        made_by = [
            *(f"{tower.space.collection} {tower.card.revision}" for tower in towers),
            segmenter.card.revision if segmenter else _NONE,
            self._settings.max_segments,
            self._settings.segment_min_score,
            CODE_VERSION,
        ]
        fingerprint = hashlib.sha256(json.dumps(made_by).encode()).hexdigest()[:16]
        return Parts(
            profile=profile,
            text_tower=dual,
            image_towers=towers,
            spaces=tuple(_of_fingerprint(tower.space, fingerprint) for tower in towers),
            segmenter=segmenter,
            notice=" ".join(self._notices) or None,
            fingerprint=fingerprint,
        )


def _of_fingerprint(space: Space, fingerprint: str) -> Space:
    return space.model_copy(update={"collection": f"{space.collection}-{fingerprint[:8]}"})


def _beside(folder: Path, model: str) -> str:
    """A path beside the profile where there is one, else the name as it is."""
    beside = folder / model
    return str(beside) if beside.exists() else model


def _loaded(model: str, loader: Callable[[], LoadedT]) -> LoadedT:
    """Weights that are absent, or cannot be loaded, are none. Raises NoModel."""
    name, base = public_name(model), base_name(model)
    try:
        return loader()
    except (NotInstalled, UnusableRuntime) as error:
        raise NoModel(f"{name} cannot be loaded: {error}.", retry_after_s=_RETRY_AFTER_S) from None
    except NotFetched as error:
        advice = f"Put its checkpoint into MODELS_DIR/{base}, connect this machine to the hub, or choose another MODEL_PROFILE."
        text = f"No weights of {name}: {error}. {advice}"
        raise NoModel(text, retry_after_s=_RETRY_AFTER_S) from None
    except Exception as error:
        log.exception("model_load_failed", model=name)
        text = f"The weights of {name} cannot be loaded ({type(error).__name__}): replace MODELS_DIR/{base}. The log says more."
        raise NoModel(text, retry_after_s=_RETRY_AFTER_S) from error
