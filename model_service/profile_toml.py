"""A profile of one's own: a folder `MODELS_DIR/<name>` with a `profile.toml`, or with an `embedder.json` (see `onnx_encoder`).

[embedder]                     # words and pictures; required
model = "./clip-finetuned"     # a folder beside this file, one of MODELS_DIR, or a hub id; "starter" is the shipped one
name = "My model"              # what users call it; optional
[embedder.text]                # only where words have a checkpoint of their own; both folders then hold a projection.safetensors
model = "./words"
pooling = "mean"               # or "cls", "pooler"
[image_embedder]               # pictures only; optional, same keys
[segmenter]                    # optional; without it the setting SEGMENTER holds
model = "best-seg.pt"          # a file beside this file, or of MODELS_DIR; "none" leaves segments out
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import NoModel

DESCRIPTION = "embedder.json"
STARTER = "starter"
"""As an embedder's model: the one that is shipped."""


class TextEntry(BaseModel):
    """`[embedder.text]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(min_length=1)
    pooling: Literal["mean", "cls", "pooler"] = "mean"


class ImageEntry(BaseModel):
    """`[image_embedder]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1, max_length=60)


class EmbedderEntry(ImageEntry):
    """`[embedder]`."""

    loader: Literal["transformers", "onnx"] | None = None
    text: TextEntry | None = None


class SegmenterEntry(BaseModel):
    """`[segmenter]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    model: str = Field(min_length=1)


class Profile(BaseModel):
    """One `profile.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedder: EmbedderEntry
    image_embedder: ImageEntry | None = None
    segmenter: SegmenterEntry | None = None


def read(folder: Path, name: str) -> Profile:
    """Raises NoModel when there is no such profile, or it does not hold."""
    path = folder / "profile.toml"
    if not path.is_file() and (folder / DESCRIPTION).is_file():
        return Profile(embedder=EmbedderEntry(model="."))
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        text = (
            f"There is no model profile {name}: put MODELS_DIR/{name}/profile.toml there, "
            "or set MODEL_PROFILE to auto, clip or starter."
        )
        raise NoModel(text, retry_after_s=10.0) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NoModel(f"MODELS_DIR/{name}/profile.toml does not hold: {where}: {first['msg']}", retry_after_s=10.0) from None
    except (OSError, ValueError) as error:
        raise NoModel(f"MODELS_DIR/{name}/profile.toml cannot be read ({type(error).__name__}).", retry_after_s=10.0) from None
