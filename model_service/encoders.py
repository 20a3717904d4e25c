"""Towers from `transformers` checkpoints: any CLIP-like dual encoder, two towers of their own, and any image-only backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.backbones import (
    ImageBackbone,
    Pooling,
    TextBackbone,
    UnusableCheckpoint,
    load_image_backbone,
    load_image_processor,
    load_text_backbone,
    load_tokenizer,
    longest_text,
    pooled,
)
from model_service.framing import bounded_aspect
from model_service.parts import Tensor
from model_service.weights import Checkpoint

_GREY: Pixels = np.full((64, 64, 3), 128, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class TransformersImageTower:
    """Pictures alone: a backbone's pooled output, projected where the checkpoint has a projection."""

    backbone: ImageBackbone
    processor: Any
    space: Space
    card: ModelCard

    def prepare(self, pixels: Pixels) -> Tensor:
        return prepared(self.processor, pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return _image_features(self.backbone, np.stack(prepared))


@dataclass(frozen=True, slots=True)
class TransformersDualEncoder:
    """Pictures and words. `embed_texts` wants one thread at a time: a tokenizer keeps its padding as state."""

    images: TransformersImageTower
    tokenizer: Any
    text_features: Callable[[Any], torch.Tensor]
    """Of tokens on the model's device: (n, dim)."""
    max_tokens: int
    padding: str | bool

    @property
    def space(self) -> Space:
        return self.images.space

    @property
    def card(self) -> ModelCard:
        return self.images.card

    def prepare(self, pixels: Pixels) -> Tensor:
        return self.images.prepare(pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.images.embed(prepared)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(texts), padding=self.padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(_device(self.images.backbone))
        with torch.inference_mode():
            return _normalised(self.text_features(tokens))


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
    """One checkpoint with both towers. Raises UnusableCheckpoint, and whatever `transformers` raises for a damaged folder."""
    images = _loaded(checkpoint, device, model_name, text=True)
    model = images.backbone.model
    if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
        raise UnusableCheckpoint("it is no dual encoder of words and pictures")
    tokenizer = load_tokenizer(checkpoint.path)
    return TransformersDualEncoder(
        images=images,
        tokenizer=tokenizer,
        text_features=lambda tokens: pooled(model.get_text_features(**tokens)),
        max_tokens=longest_text(tokenizer, model),
        padding="max_length" if model.config.model_type.startswith("siglip") else True,  # SigLIP was trained on padded text
    )


def load_two_towers(
    images: Checkpoint, texts: Checkpoint, *, pooling: Pooling, device: str, model_name: str
) -> TransformersDualEncoder:
    """Two checkpoints, each with a projection into their common space. Raises as `load_dual_encoder`."""
    both = Checkpoint(images.path, images.name, images.joined_with(texts))
    tower = _loaded(both, device, model_name, text=True)
    backbone = load_text_backbone(texts.path, pooling).to(device)
    tokenizer = load_tokenizer(texts.path)
    dual = TransformersDualEncoder(
        images=tower,
        tokenizer=tokenizer,
        text_features=_words(backbone),
        max_tokens=longest_text(tokenizer, backbone.model),
        padding=True,
    )
    found = dual.embed_texts(["a photo"]).shape[1]
    if found != tower.space.dim:
        raise UnusableCheckpoint(f"its towers do not meet: pictures have {tower.space.dim} numbers, words {found}")
    return dual


def load_image_tower(checkpoint: Checkpoint, *, device: str, model_name: str) -> TransformersImageTower:
    """As `load_dual_encoder`, of pictures alone."""
    return _loaded(checkpoint, device, model_name, text=False)


def prepared(processor: Any, pixels: Pixels) -> Tensor:
    """One picture as its backbone takes it: (3, h, w)."""
    found = processor(images=bounded_aspect(pixels), input_data_format="channels_last", return_tensors="np")
    return np.asarray(found["pixel_values"][0], dtype=np.float32)


def _words(backbone: TextBackbone) -> Callable[[Any], torch.Tensor]:
    return lambda tokens: torch.as_tensor(backbone(tokens["input_ids"], tokens["attention_mask"]))


def _loaded(checkpoint: Checkpoint, device: str, model_name: str, *, text: bool) -> TransformersImageTower:
    """Embeds a grey picture to learn the dimension."""
    backbone = load_image_backbone(checkpoint.path).to(device)
    processor = load_image_processor(checkpoint.path)
    dim = _image_features(backbone, prepared(processor, _GREY)[None]).shape[1]
    space = Space(collection=checkpoint.collection, model_name=model_name, dim=dim, text=text)
    card = ModelCard(
        role="embedder",
        model_name=model_name,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=f"torch {torch.__version__.split('+')[0]}",
        device=device,
        precision="float32",
    )
    return TransformersImageTower(backbone, processor, space, card)


def _image_features(backbone: ImageBackbone, pixels: Tensor) -> Tensor:
    batch = torch.from_numpy(pixels).to(_device(backbone))
    with torch.inference_mode():
        return _normalised(backbone(batch))


def _device(backbone: ImageBackbone) -> torch.device:
    return next(backbone.parameters()).device


def _normalised(features: torch.Tensor) -> Tensor:
    return np.asarray(torch.nn.functional.normalize(features.flatten(1).float(), dim=1).cpu().numpy(), dtype=np.float32)
