"""What was trained, as a profile that the model service loads: MODELS_DIR/<name> with `profile.toml`, the towers and a card."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from training.options import DualEncoderOptions, LabelledOptions, RunOptions
from training.runs import Epoch
from training.towers import StartImage, StartText, save_image_tower, save_text_tower


def write_image_profile(options: LabelledOptions, image: StartImage, *, report: str) -> None:
    """A profile whose words are embedded by `options.words` and whose pictures are compared by the trained tower as well."""
    tower = f"{options.name}-images"
    toml = f'[embedder]\nmodel = "{options.words}"\n\n[image_embedder]\nmodel = "{tower}"\nname = "{options.name}"\n'

    def write(folder: Path) -> None:
        save_image_tower(image.backbone, image.processor, folder / tower)

    _written(options, toml, report, write)


def write_dual_profile(options: DualEncoderOptions, image: StartImage, text: StartText, *, report: str) -> None:
    """A profile of words and pictures."""
    images, words = f"{options.name}-images", f"{options.name}-words"
    toml = (
        f'[embedder]\nmodel = "{images}"\nname = "{options.name}"\n\n'
        f'[embedder.text]\nmodel = "{words}"\npooling = "{options.pooling}"\n'
    )

    def write(folder: Path) -> None:
        save_image_tower(image.backbone, image.processor, folder / images)
        save_text_tower(text, folder / words)

    _written(options, toml, report, write)


def card(options: RunOptions, title: str, epochs: Sequence[Epoch], best: int, lines: Sequence[str]) -> str:
    """The start of a model card: what it learned from, how, and what came out. Licence and limits are its maker's to add."""
    taught = ", ".join(f"{key} {value}" for key, value in sorted(options.model_dump(mode="json").items()) if key not in _PLACES)
    return "\n".join(
        [
            f"# {options.name}",
            "",
            title,
            "",
            f"- Start: {options.tower}. Pictures: {options.pictures.name}. Epochs: {epochs[-1].number}, the best {best}.",
            *(f"- {line}" for line in lines),
            f"- Options: {taught}.",
            "- Licence and limits: those of the pictures and start weights; fill them in before you pass it on.",
            "",
        ]
    )


_PLACES = {"pictures", "captions", "models_dir", "runs_dir", "name", "resume", "overwrite", "threads", "workers", "device"}


def _written(options: RunOptions, toml: str, report: str, write: Callable[[Path], None]) -> None:
    """Complete or not at all: a service that watches MODELS_DIR never sees half of it."""
    options.models_dir.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix=f".{options.name}-", dir=options.models_dir))
    try:
        write(place)
        (place / "profile.toml").write_text(toml, encoding="utf-8")
        (place / "README.md").write_text(report, encoding="utf-8")
        target = options.models_dir / options.name
        shutil.rmtree(target, ignore_errors=True)
        place.chmod(0o755)
        place.replace(target)
    finally:
        shutil.rmtree(place, ignore_errors=True)
