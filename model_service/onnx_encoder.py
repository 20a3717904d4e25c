"""A dual encoder as ONNX graphs, run by ONNX Runtime without torch: what `training` exports. A folder with `embedder.json`:

    {"format": 1, "name": "starter", "revision": "3f2a...", "dim": 256,
     "image": {"file": "image.onnx", "size": 224, "resize": "shortest" | "squash", "mean": [r, g, b], "std": [r, g, b]},
     "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": 64, "template": "{}"}}

The image graph takes `pixels` (float32, N x 3 x size x size) and answers `embedding` (N x dim). Pixels are RGB scaled to 0..1, then
`(pixel - mean) / std`; the picture is resized by Pillow's BICUBIC, so that its short side is `size` and then cropped about its
centre (`shortest`), or to the square whatever its shape (`squash`). The text graph takes `input_ids` and `attention_mask` (int64,
N x tokens) and answers `embedding`; a text is put into `template` first. Embeddings need not be normalised.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from tokenizers import Tokenizer

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.framing import bounded_aspect
from model_service.parts import Tensor
from model_service.profile_toml import DESCRIPTION
from model_service.weights import Checkpoint, content_revision


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
    text: TextGraph


@dataclass(frozen=True, slots=True)
class OnnxDualEncoder:
    """Both towers of such a folder."""

    image_session: Any
    text_session: Any
    tokenizer: Tokenizer
    description: Description
    space: Space
    card: ModelCard
    at_once: int

    def prepare(self, pixels: Pixels) -> Tensor:
        graph = self.description.image
        square = _squared(Image.fromarray(np.ascontiguousarray(bounded_aspect(pixels))), graph.size, graph.resize)
        mean, std = np.asarray(graph.mean, dtype=np.float32), np.asarray(graph.std, dtype=np.float32)
        scaled = (np.asarray(square, dtype=np.float32) / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _normalised(self.image_session.run(["embedding"], {"pixels": np.stack(prepared)})[0])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        template = self.description.text.template
        encoded = self.tokenizer.encode_batch([template.replace("{}", text) for text in texts])
        ids = np.asarray([tokens.ids for tokens in encoded], dtype=np.int64)
        attended = np.asarray([tokens.attention_mask for tokens in encoded], dtype=np.int64)
        return _normalised(self.text_session.run(["embedding"], {"input_ids": ids, "attention_mask": attended})[0])


def load(folder: Path, *, model_name: str | None, threads: int, passes: int = 1) -> OnnxDualEncoder:
    """`model_name` is what users call it, instead of the description's own; `passes` over pictures share the threads. Raises ValueError
    and what ONNX Runtime raises."""
    description = Description.model_validate(json.loads((folder / DESCRIPTION).read_text(encoding="utf-8")))
    shown = model_name or description.name
    card = ModelCard(
        role="embedder",
        model_name=shown,
        source=description.name,
        revision=content_revision(_files(folder, description)),
        runtime=f"onnxruntime {onnxruntime.__version__}",
        device="cpu",
        precision="float32",
    )
    encoder = OnnxDualEncoder(
        image_session=_session(folder / description.image.file, max(1, threads // passes)),
        text_session=_session(folder / description.text.file, threads),
        tokenizer=_tokenizer(folder / description.text.tokenizer, description.text.max_tokens),
        description=description,
        space=Space(
            collection=Checkpoint(folder, description.name, description.revision).collection,
            model_name=shown,
            dim=description.dim,
            text=True,
        ),
        card=card,
        at_once=passes,
    )
    _check_dimensions(encoder)
    return encoder


def _files(folder: Path, description: Description) -> list[Path]:
    """All that makes the vectors: the description's own revision is a name, which stays when somebody replaces a graph."""
    text = description.text
    return [folder / name for name in (DESCRIPTION, description.image.file, text.file, text.tokenizer)]


def _tokenizer(path: Path, max_tokens: int) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(max_tokens)
    padding = tokenizer.padding or {}
    tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))
    return tokenizer


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: it warns of every initializer that it folds
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # threads that wait would take the cores of who searches
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _check_dimensions(encoder: OnnxDualEncoder) -> None:
    """Run both graphs once. Raises ValueError when an embedding is not as long as described."""
    grey: Pixels = np.full((16, 16, 3), 128, dtype=np.uint8)
    embeddings = (encoder.embed([encoder.prepare(grey)]), encoder.embed_texts(["a photo"]))
    if any(embedding.shape != (1, encoder.space.dim) for embedding in embeddings):
        raise ValueError(f"the graphs do not answer embeddings of {encoder.space.dim} numbers")


def _squared(picture: Image.Image, side: int, resize: Literal["shortest", "squash"]) -> Image.Image:
    if resize == "squash":
        return picture.resize((side, side), Image.Resampling.BICUBIC)
    scale = side / min(picture.size)
    width, height = (max(side, round(length * scale)) for length in picture.size)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))


def _normalised(embeddings: NDArray[np.floating[Any]]) -> Tensor:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), dtype=np.float32)
