"""What made a fingerprint, in MODELS_DIR/served: so that models of before can be loaded again by whoever names them by it.

Nothing but what the settings named once is ever loaded for a caller's word.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import NoModel
from core.schemas import Space
from model_service.parts import Parts
from model_service.settings import ModelSettings

log = structlog.get_logger()

_FINGERPRINT = re.compile(r"[A-Za-z0-9]{1,64}")


class Choice(BaseModel):
    """The settings that decide what models make of a picture, under the settings' own names."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model_profile: str
    clip_model: str
    image_model: str
    segmenter: str
    max_segments: int
    segment_min_score: float

    @classmethod
    def of(cls, settings: ModelSettings) -> Self:
        return cls.model_validate(settings.model_dump(include=set(cls.model_fields)))


class Served(BaseModel):
    """A record. `weights` names each tower's model and revision; `profile` is what the choice came to (`auto` comes to another)."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    fingerprint: str
    profile: str
    choice: Choice
    weights: tuple[str, ...]
    spaces: tuple[Space, ...]


class Load(Protocol):
    """Find, fetch if need be, and load what the settings name. Blocking. Raises NoModel."""

    def __call__(self, settings: ModelSettings, /) -> Parts: ...


def remember(settings: ModelSettings, parts: Parts) -> None:
    """Whole or not at all. A folder that takes no writing costs the way back, and no more."""
    record = Served(
        fingerprint=parts.fingerprint,
        profile=parts.profile,
        choice=Choice.of(settings),
        weights=weights_of(parts),
        spaces=parts.spaces,
    )
    path = _path(settings.models_dir, parts.fingerprint)
    partial = path.with_suffix(f".{uuid4().hex}.part")  # others may share the folder, and remember the same
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(record.model_dump_json(indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        log.warning("models_not_remembered", profile=parts.profile, error=repr(error))
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def recall(models_dir: Path, fingerprint: str) -> Served | None:
    if not _FINGERPRINT.fullmatch(fingerprint):
        return None
    try:
        return Served.model_validate_json(_path(models_dir, fingerprint).read_bytes())
    except (OSError, ValidationError):
        return None


def load_again(settings: ModelSettings, fingerprint: str, load: Load) -> Parts:
    """The models of before, if their weights are still the same. Raises NoModel, which says why not."""
    record = recall(settings.models_dir, fingerprint)
    if record is None:
        raise NoModel("the models of before are not known in this MODELS_DIR")
    parts = load(settings.model_copy(update={**record.choice.model_dump(), "model_profile": record.profile}))
    found = weights_of(parts)
    if found[0] != record.weights[0] or not set(found) >= set(record.weights):
        raise NoModel(f"the weights of {record.profile} were replaced since")
    towers = dict(zip(found, parts.image_towers, strict=True))
    return replace(
        parts,
        image_towers=tuple(towers[weights] for weights in record.weights),
        spaces=record.spaces,
        fingerprint=record.fingerprint,
    )


def weights_of(parts: Parts) -> tuple[str, ...]:
    return tuple(f"{tower.space.collection} {tower.card.revision}" for tower in parts.image_towers)


def _path(models_dir: Path, fingerprint: str) -> Path:
    return models_dir / "served" / f"{fingerprint}.json"
