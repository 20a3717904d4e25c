"""Towers from `transformers` checkpoints: any CLIP-like dual encoder, and any image-only backbone.

Preparing is the checkpoint's own image processor, on Pillow: the resampling that CLIP was trained with, and free of shared state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.framing import bounded_aspect
from model_service.parts import Tensor
from model_service.weights import Checkpoint

_GREY: Pixels = np.full((64, 64, 3), 128, dtype=np.uint8)


class UnusableCheckpoint(Exception):
    """The checkpoint does not hold what it takes; `str` says what is missing."""


@dataclass(frozen=True, slots=True)
class TransformersImageTower:
    """An image-only backbone such as ResNet: its pooled output."""

    model: Any
    processor: Any
    space: Space
    card: ModelCard

    def prepare(self, pixels: Pixels) -> Tensor:
        return _prepared(self.processor, pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _image_features(self.model, np.stack(prepared))


@dataclass(frozen=True, slots=True)
class TransformersDualEncoder:
    """Both towers of a CLIP-like checkpoint. `embed_texts` wants one thread at a time: a tokenizer keeps its padding as state."""

    model: Any
    processor: Any
    tokenizer: Any
    max_tokens: int
    padding: str | bool
    space: Space
    card: ModelCard

    def prepare(self, pixels: Pixels) -> Tensor:
        return _prepared(self.processor, pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _image_features(self.model, np.stack(prepared))

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=self.padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.model.device)
        with torch.inference_mode():
            return _normalised(_pooled(self.model.get_text_features(**tokens)))


def chosen_device(wanted: str, threads: int) -> str:
    """The device for `auto` or a named one; sets torch's threads, which is a setting of the process. Raises UnusableCheckpoint."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = wanted.partition(":")[0]
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}.get(kind, True)
    if not usable:
        raise UnusableCheckpoint(f"this machine has no {wanted} that torch can use: set MODEL_DEVICE to auto")
    return wanted


def load_dual_encoder(checkpoint: Checkpoint, *, device: str, model_name: str) -> TransformersDualEncoder:
    """Raises UnusableCheckpoint, and whatever `transformers` raises for a damaged folder."""
    model, processor = _loaded(checkpoint, device)
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UnusableCheckpoint("it is no dual encoder of words and pictures")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    positions = getattr(model.config.text_config, "max_position_embeddings", None) or 512
    return TransformersDualEncoder(
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        max_tokens=min(int(tokenizer.model_max_length), int(positions)),
        padding="max_length" if model.config.model_type.startswith("siglip") else True,  # SigLIP was trained on padded text
        space=_space(checkpoint, model, processor, model_name, text=True),
        card=_card(checkpoint, device, model_name),
    )


def load_image_tower(checkpoint: Checkpoint, *, device: str, model_name: str) -> TransformersImageTower:
    """As `load_dual_encoder`, of pictures alone."""
    model, processor = _loaded(checkpoint, device)
    space = _space(checkpoint, model, processor, model_name, text=False)
    return TransformersImageTower(model, processor, space, _card(checkpoint, device, model_name))


def _loaded(checkpoint: Checkpoint, device: str) -> tuple[Any, Any]:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model, report = transformers.AutoModel.from_pretrained(
        checkpoint.path, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    absent = sorted(map(str, report["missing_keys"]))
    if absent:  # transformers fills these with random numbers
        raise UnusableCheckpoint(f"it lacks {len(absent)} weights, {absent[0]} among them")
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint.path, local_files_only=True, backend="pil")
    return model.eval().to(device), processor


def _space(checkpoint: Checkpoint, model: Any, processor: Any, model_name: str, *, text: bool) -> Space:
    """Embeds a grey picture to learn the dimension."""
    dim = _image_features(model, _prepared(processor, _GREY)[None]).shape[1]
    return Space(collection=checkpoint.collection, model_name=model_name, dim=dim, text=text)


def _card(checkpoint: Checkpoint, device: str, model_name: str) -> ModelCard:
    return ModelCard(
        role="embedder",
        model_name=model_name,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=f"torch {torch.__version__.split('+')[0]}",
        device=device,
        precision="float32",
    )


def _prepared(processor: Any, pixels: Pixels) -> Tensor:
    prepared = processor(images=bounded_aspect(pixels), input_data_format="channels_last", return_tensors="np")
    return np.asarray(prepared["pixel_values"][0], dtype=np.float32)


def _image_features(model: Any, pixels: Tensor) -> Tensor:
    batch = torch.from_numpy(pixels).to(model.device)
    with torch.inference_mode():
        output = (
            model.get_image_features(pixel_values=batch) if hasattr(model, "get_image_features") else model(pixel_values=batch)
        )
        return _normalised(_pooled(output))


def _pooled(output: Any) -> torch.Tensor:
    """`transformers` 5 answers an output object whose pooled output is the projected embedding; 4 answered the tensor."""
    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    return torch.as_tensor(output.last_hidden_state[:, 0] if pooled is None else pooled)


def _normalised(features: torch.Tensor) -> Tensor:
    return np.asarray(torch.nn.functional.normalize(features.flatten(1).float(), dim=1).cpu().numpy(), dtype=np.float32)
