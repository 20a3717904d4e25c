"""Towers from `transformers` checkpoints: any CLIP-like dual encoder, and any image-only backbone.

Each tower splits its work into `prepare` (CPU, one picture, any thread) and `embed` (one batched forward pass).
Preparing is the checkpoint's own image processor, on Pillow: the resampling that CLIP was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.parts import Tensor
from model_service.sources import Checkpoint

_DISPLAY_NAMES = {
    "clip": "CLIP",
    "siglip": "SigLIP",
    "siglip2": "SigLIP 2",
    "vision-text-dual-encoder": "Dual encoder",
    "align": "ALIGN",
    "chinese_clip": "Chinese-CLIP",
    "resnet": "ResNet",
    "vit": "ViT",
    "dinov2": "DINOv2",
    "convnext": "ConvNeXT",
}


class UnusableCheckpoint(Exception):
    """The checkpoint does not hold what it takes; `str` says what is missing."""


@dataclass(frozen=True, slots=True)
class TransformersImageTower:
    """The image side of a dual encoder, or an image-only backbone."""

    model: Any
    processor: Any
    device: str
    space: Space
    card: ModelCard

    def prepare(self, pixels: Pixels) -> Tensor:
        prepared = self.processor(images=Image.fromarray(_at_least_two(pixels)), return_tensors="np")
        return np.asarray(prepared["pixel_values"][0], dtype=np.float32)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _image_features(self.model, torch.from_numpy(np.stack(prepared)).to(self.device))


@dataclass(frozen=True, slots=True)
class TransformersTextTower:
    """The text side of a dual encoder."""

    model: Any
    tokenizer: Any
    device: str
    max_tokens: int
    padding: str | bool
    space: Space

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=self.padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(self.device)
        with torch.inference_mode():
            return _normalised(_pooled(self.model.get_text_features(**tokens)))


def load_dual_encoder(
    checkpoint: Checkpoint, device: str, name: str | None
) -> tuple[TransformersTextTower, TransformersImageTower]:
    """`name` is what users call it, instead of the family's name. Raises UnusableCheckpoint, and whatever `transformers` raises."""
    model, processor = _load(checkpoint, device)
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UnusableCheckpoint(f"{checkpoint.name} is no dual encoder of text and pictures")
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint.path, local_files_only=True)
    space, card = _described(checkpoint, model, processor, name, text=True)
    positions = getattr(model.config.text_config, "max_position_embeddings", None) or 512
    text = TransformersTextTower(
        model=model,
        tokenizer=tokenizer,
        device=device,
        max_tokens=min(int(tokenizer.model_max_length), int(positions)),
        padding="max_length" if model.config.model_type.startswith("siglip") else True,  # SigLIP was trained on padded text
        space=space,
    )
    return text, TransformersImageTower(model, processor, device, space, card)


def load_image_tower(checkpoint: Checkpoint, device: str, name: str | None) -> TransformersImageTower:
    """As `load_dual_encoder`, of the image side alone."""
    model, processor = _load(checkpoint, device)
    space, card = _described(checkpoint, model, processor, name, text=False)
    return TransformersImageTower(model, processor, device, space, card)


def _load(checkpoint: Checkpoint, device: str) -> tuple[Any, Any]:
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model, report = transformers.AutoModel.from_pretrained(
        checkpoint.path, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:  # transformers fills these with random numbers
        raise UnusableCheckpoint(f"{checkpoint.name} lacks weights, {min(report['missing_keys'])} among them")
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint.path, local_files_only=True, backend="pil")
    return model.eval().to(device), processor


def _described(checkpoint: Checkpoint, model: Any, processor: Any, name: str | None, *, text: bool) -> tuple[Space, ModelCard]:
    """Embed a grey picture to learn the dimension."""
    grey = processor(images=Image.new("RGB", (64, 64), "grey"), return_tensors="np")["pixel_values"]
    dim = int(_image_features(model, torch.from_numpy(np.asarray(grey, dtype=np.float32)).to(model.device)).shape[1])
    kind = model.config.model_type
    shown = name or _DISPLAY_NAMES.get(kind, kind)
    card = ModelCard(
        role="embedder",
        model_name=shown,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=f"torch {torch.__version__.split('+')[0]}",
        device=str(model.device),
        precision="float32",
    )
    return Space(collection=checkpoint.collection, model_name=shown, dim=dim, text=text), card


def _image_features(model: Any, pixels: torch.Tensor) -> Tensor:
    with torch.inference_mode():
        output = model.get_image_features(pixel_values=pixels) if hasattr(model, "get_image_features") else model(pixels)
        return _normalised(_pooled(output))


def _pooled(output: Any) -> torch.Tensor:
    """`transformers` 5 answers an output object whose pooled output is the projected embedding; 4 answered the tensor."""
    if isinstance(output, torch.Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    return torch.as_tensor(output.last_hidden_state[:, 0] if pooled is None else pooled)


def _normalised(features: torch.Tensor) -> Tensor:
    return np.asarray(torch.nn.functional.normalize(features.flatten(1).float(), dim=1).cpu().numpy(), dtype=np.float32)


def _at_least_two(pixels: Pixels) -> Pixels:
    """Widen a side of one pixel, which image processors take for a colour channel."""
    return np.repeat(np.repeat(pixels, 2, axis=0), 2, axis=1) if min(pixels.shape[:2]) < 4 else pixels
