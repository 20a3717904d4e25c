"""Towers from ONNX graphs (`onnx_format`), run by ONNX Runtime without torch: what the training recipes export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service import onnx_format
from model_service.onnx_format import ImageGraph, TextGraph, UnusableGraphs
from model_service.parts import Tensor
from model_service.sources import Checkpoint


@dataclass(frozen=True, slots=True)
class OnnxImageTower:
    """Pictures through the image graph."""

    session: Any
    graph: ImageGraph
    space: Space
    card: ModelCard

    def prepare(self, pixels: Pixels) -> Tensor:
        side = self.graph.size
        picture = Image.fromarray(pixels)
        if self.graph.resize == "squash":
            square = picture.resize((side, side), Image.Resampling.BICUBIC)
        else:
            scale = side / min(picture.size)
            width, height = (max(side, round(length * scale)) for length in picture.size)
            left, top = (width - side) // 2, (height - side) // 2
            square = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + side, top + side))
        mean, std = np.asarray(self.graph.mean, dtype=np.float32), np.asarray(self.graph.std, dtype=np.float32)
        scaled = (np.asarray(square, dtype=np.float32) / 255 - mean) / std
        return np.ascontiguousarray(scaled.transpose(2, 0, 1))

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _normalised(self.session.run(["embedding"], {"pixels": np.stack(prepared)})[0])


@dataclass(frozen=True, slots=True)
class OnnxTextTower:
    """Words through the text graph."""

    session: Any
    tokenizer: Tokenizer
    template: str
    space: Space

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        encoded = self.tokenizer.encode_batch([self.template.replace("{}", text) for text in texts])
        ids = np.asarray([tokens.ids for tokens in encoded], dtype=np.int64)
        attended = np.asarray([tokens.attention_mask for tokens in encoded], dtype=np.int64)
        return _normalised(self.session.run(["embedding"], {"input_ids": ids, "attention_mask": attended})[0])


def load(folder: Path, *, name: str | None, threads: int) -> tuple[OnnxTextTower | None, OnnxImageTower]:
    """Load a folder; `name` is what a user calls the model, instead of the description's own. Raises UnusableGraphs."""
    description = onnx_format.read(folder)
    checkpoint = Checkpoint(folder, description.name, description.revision)
    space = Space(
        collection=checkpoint.collection,
        model_name=name or description.name,
        dim=description.dim,
        text=description.text is not None,
    )
    card = ModelCard(
        role="embedder",
        model_name=space.model_name,
        source=description.name,
        revision=description.revision,
        runtime=f"onnxruntime {onnxruntime.__version__}",
        device="cpu",
        precision="float32",
    )
    image = OnnxImageTower(_session(folder / description.image.file, threads), description.image, space, card)
    text = _text_tower(folder, description.text, space, threads) if description.text else None
    _check_dimensions(text, image)
    return text, image


def _text_tower(folder: Path, graph: TextGraph, space: Space, threads: int) -> OnnxTextTower:
    tokenizer = Tokenizer.from_file(str(folder / graph.tokenizer))
    tokenizer.enable_truncation(graph.max_tokens)
    if tokenizer.padding is None:
        tokenizer.enable_padding()
    return OnnxTextTower(_session(folder / graph.file, threads), tokenizer, graph.template, space)


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: it warns of every initializer that it folds
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _check_dimensions(text: OnnxTextTower | None, image: OnnxImageTower) -> None:
    """Run both once. Raises UnusableGraphs when an embedding is not as long as described."""
    grey: Pixels = np.full((16, 16, 3), 128, dtype=np.uint8)
    embeddings = [image.embed([image.prepare(grey)])] + ([text.embed_texts(["a photo"])] if text else [])
    if any(embedding.shape != (1, image.space.dim) for embedding in embeddings):
        raise UnusableGraphs(f"the graphs do not answer embeddings of {image.space.dim} numbers")


def _normalised(embeddings: NDArray[np.floating[Any]]) -> Tensor:
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(lengths, 1e-12), dtype=np.float32)
