"""The description of a dual encoder as ONNX graphs: `embedder.json`, beside the files that it names.

    {"format": 1, "name": "starter", "revision": "3f2a...", "dim": 256,
     "image": {"file": "image.onnx", "size": 224, "resize": "shortest" | "squash", "mean": [r, g, b], "std": [r, g, b]},
     "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": 64, "template": "{}"}}

The image graph takes `pixels` (float32, N x 3 x size x size) and answers `embedding` (N x dim). Pixels are RGB scaled to 0..1, then
`(pixel - mean) / std`; the picture is resized by Pillow's BICUBIC, so that its short side is `size` and then cropped about its
centre (`shortest`), or to the square whatever its shape (`squash`). The text graph takes `input_ids` and `attention_mask` (int64,
N x tokens) and answers `embedding`. The tokenizer is a `tokenizers` file; a text is put into `template` first. Without `text`, the
folder is an image-only tower. Embeddings need not be normalised.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

DESCRIPTION = "embedder.json"


class UnusableGraphs(Exception):
    """The folder is not what this module describes; `str` says why."""


class ImageGraph(BaseModel):
    """`image` of the description."""

    model_config = ConfigDict(frozen=True)
    file: str
    size: int = Field(ge=8, le=2048)
    resize: Literal["shortest", "squash"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TextGraph(BaseModel):
    """`text` of the description."""

    model_config = ConfigDict(frozen=True)
    file: str
    tokenizer: str
    max_tokens: int = Field(ge=1)
    template: str = "{}"


class Description(BaseModel):
    """The whole file."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1]
    name: str = Field(min_length=1, max_length=60)
    revision: str = Field(min_length=8)
    dim: int = Field(ge=1)
    image: ImageGraph
    text: TextGraph | None = None


def read(folder: Path) -> Description:
    """Raises UnusableGraphs."""
    try:
        return Description.model_validate(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UnusableGraphs(f"{DESCRIPTION} does not hold: {where}: {first['msg']}") from None
    except (OSError, ValueError) as error:
        raise UnusableGraphs(f"{DESCRIPTION} cannot be read ({type(error).__name__})") from None
