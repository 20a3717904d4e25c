"""All that was measured of one profile: what `report.json` says."""

from __future__ import annotations

import platform
from dataclasses import dataclass, fields, is_dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from core.schemas import ModelCard
from training.evaluation.embedding import Skipped
from training.evaluation.examples import Examples
from training.evaluation.options import EvaluateOptions
from training.evaluation.scores import FewShot, Retrieval, ZeroShot

_LIBRARIES = ("numpy", "pillow", "scipy", "scikit-learn", "torch", "transformers", "onnxruntime")


@dataclass(frozen=True, slots=True)
class TowerScores:
    """What a tower makes of pictures alone. `image_to_image` is None where no label has two pictures, `few_shot` where too few have enough."""

    card: ModelCard
    dim: int
    text: bool
    image_to_image: Retrieval | None
    few_shot: FewShot | None


@dataclass(frozen=True, slots=True)
class CaptionScores:
    """Of the dual encoder, on captioned pictures."""

    pictures: int
    captions: int
    text_to_image: Retrieval
    image_to_text: Retrieval


@dataclass(frozen=True, slots=True)
class NameScores:
    """Of the dual encoder, on labelled pictures, with the names put into the template."""

    template: str
    scores: ZeroShot


@dataclass(frozen=True, slots=True)
class LabelScores:
    """`labels` are the folders' names, `words` what was asked for; `queries` and `gallery` are the same pictures where one is left out."""

    pictures: int
    queries: int
    gallery: int
    leave_one_out: bool
    labels: tuple[str, ...]
    words: tuple[str, ...]
    zero_shot: tuple[NameScores, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`towers[0]` is the dual encoder. `notes` say what was not measured, and why."""

    profile: str
    fingerprint: str
    notice: str | None
    options: EvaluateOptions
    towers: tuple[TowerScores, ...]
    captioned: CaptionScores | None
    labelled: LabelScores | None
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]
    examples: tuple[Examples, ...]
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {"python": platform.python_version()} | {library: version(library) for library in _LIBRARIES}


def plain(value: object) -> object:
    """Dataclasses, models, arrays and paths as what JSON knows."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {str(key): plain(kept) for key, kept in value.items()}
    if isinstance(value, tuple | list):
        return [plain(kept) for kept in value]
    return value.as_posix() if isinstance(value, Path) else value


def short_table(evaluation: Evaluation) -> str:
    """A few lines for a terminal; per cent."""
    lines = [f"{evaluation.profile}: {', '.join(tower.card.model_name for tower in evaluation.towers)} (per cent)"]
    if found := evaluation.captioned:
        lines += [_line("text to image", found.text_to_image), _line("image to text", found.image_to_text)]
    for tower in evaluation.towers:
        if tower.image_to_image:
            lines.append(_line(f"image to image, {tower.card.model_name}", tower.image_to_image))
    for names in evaluation.labelled.zero_shot if evaluation.labelled else ():
        lines.append(f"{f'zero-shot {names.template!r}':<32} top-1/5 {names.scores.top_1} / {names.scores.top_5}")
    for tower in evaluation.towers:
        if found_few := tower.few_shot:
            ways = f"{evaluation.options.ways}-way {evaluation.options.shots}-shot, {tower.card.model_name}"
            lines.append(f"{ways:<32} {found_few.accuracy} ({found_few.accuracy.low:.1f} to {found_few.accuracy.high:.1f})")
    if evaluation.skipped:
        lines.append(f"{len(evaluation.skipped)} pictures cannot be read and are left out")
    return "\n".join([*lines, *evaluation.notes]) + "\n"


def _line(name: str, found: Retrieval) -> str:
    recall = " / ".join(map(str, found.recall_at.values()))
    return f"{name:<32} R@1/5/10 {recall}   mAP {found.mean_average_precision}   MRR {found.mean_reciprocal_rank}"
