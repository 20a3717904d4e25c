"""Profiles as files: which models serve together.

`clip` is made of settings, `starter` is a folder of this package, and any other name is a folder `MODELS_DIR/<name>` with a `profile.toml`:

    [embedder]                     # text and pictures; required
    loader = "transformers"        # or "onnx" (see onnx_towers)
    model = "clip-finetuned"       # folder beside this file ("." is the profile's own); transformers: also one of MODELS_DIR, or a hub id
    name = "My model"              # what users call it; optional
    [image_embedder]               # pictures only; optional, same keys
    [segmenter]                    # optional; without it the setting SEGMENTER holds
    model = "best-seg.pt"          # file beside this file, or of MODELS_DIR; "none" leaves segments out

A folder without `profile.toml` but with an `embedder.json` is a profile whose embedder is the folder itself.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import NoModel
from model_service.onnx_format import DESCRIPTION

NONE = "none"
"""In a setting or a profile: leave this part out."""


class TowerEntry(BaseModel):
    """`[embedder]` and `[image_embedder]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model: str = Field(min_length=1)
    loader: Literal["transformers", "onnx"] = "transformers"
    name: str | None = Field(default=None, min_length=1, max_length=60)


class SegmenterEntry(BaseModel):
    """`[segmenter]`."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())
    model: str = Field(min_length=1)


class Profile(BaseModel):
    """One `profile.toml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    embedder: TowerEntry
    image_embedder: TowerEntry | None = None
    segmenter: SegmenterEntry | None = None


def starter_folder() -> Path:
    """Where the repository ships its own small model; the folder may be absent."""
    return Path(__file__).parent / "starter"


def is_profile(folder: Path) -> bool:
    return (folder / "profile.toml").is_file() or (folder / DESCRIPTION).is_file()


def read(folder: Path, name: str) -> Profile:
    """Raises NoModel when there is no such profile or it does not hold."""
    path = folder / "profile.toml"
    if not path.is_file() and (folder / DESCRIPTION).is_file():
        return Profile(embedder=TowerEntry(model=".", loader="onnx"))
    try:
        return Profile.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise NoModel(f"There is no profile {name}: MODELS_DIR/{name}/profile.toml is missing.", retry_after_s=10.0) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NoModel(f"The profile {name} does not hold: {where}: {first['msg']}", retry_after_s=10.0) from None
    except (OSError, ValueError) as error:
        raise NoModel(f"The profile {name} cannot be read ({type(error).__name__}).", retry_after_s=10.0) from None
