"""Towers from `transformers` checkpoints in torch: any CLIP-like dual encoder, two towers of their own, and any image-only backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.backbones import (
    ImageBackbone,
    Pooling,
    TextBackbone,
    UnusableCheckpoint,
    WordsOfDual,
    load_image_backbone,
    load_image_processor,
    load_text_backbone,
    load_tokenizer,
    longest_text,
)
from model_service.compiling import Compiling, is_compiled
from model_service.framing import bounded_aspect
from model_service.parts import Tensor
from model_service.runtimes import Precision
from model_service.towers import GREY, PictureTower, Tokens, TwoTowers
from model_service.weights import Checkpoint

_TEXT = "a photo of two dogs that run over a meadow"


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


def load_dual_encoder(
    checkpoint: Checkpoint,
    *,
    device: str,
    model_name: str,
    precision: Precision = Precision.FP32,
    compiling: Compiling | None = None,
) -> TwoTowers:
    """One checkpoint with both towers. Raises UnusableCheckpoint, and whatever `transformers` raises for a damaged folder."""
    backbone = load_image_backbone(checkpoint.path)
    words = WordsOfDual(backbone.model)
    placing = _Placing(device, precision, compiling)
    images = _images(backbone, checkpoint, placing, model_name, text=True)
    reader = reader_of(checkpoint.path, backbone.model)
    return TwoTowers(images, reader, placing.words(words, reader, model_name))


def load_two_towers(
    images: Checkpoint,
    texts: Checkpoint,
    *,
    pooling: Pooling,
    device: str,
    model_name: str,
    precision: Precision = Precision.FP32,
    compiling: Compiling | None = None,
) -> TwoTowers:
    """Two checkpoints, each with a projection into their common space. Raises as `load_dual_encoder`."""
    placing = _Placing(device, precision, compiling)
    both = Checkpoint(images.path, images.name, images.joined_with(texts))
    tower = _images(load_image_backbone(images.path), both, placing, model_name, text=True)
    backbone = load_text_backbone(texts.path, pooling)
    reader = reader_of(texts.path, backbone.model)
    dual = TwoTowers(tower, reader, placing.words(placing.placed(backbone), reader, model_name))
    check_meeting(dual)
    return dual


def load_image_tower(
    checkpoint: Checkpoint,
    *,
    device: str,
    model_name: str,
    precision: Precision = Precision.FP32,
    compiling: Compiling | None = None,
) -> PictureTower:
    """As `load_dual_encoder`, of pictures alone."""
    placing = _Placing(device, precision, compiling)
    return _images(load_image_backbone(checkpoint.path), checkpoint, placing, model_name, text=False)


def prepared(processor: Any, pixels: Pixels) -> Tensor:
    """One picture as its backbone takes it: (3, h, w)."""
    found = processor(images=bounded_aspect(pixels), input_data_format="channels_last", return_tensors="np")
    return np.asarray(found["pixel_values"][0], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class TokenReader:
    """Texts as the model was trained on them: cut off where it stops reading, and padded."""

    tokenizer: Any
    longest: int
    to_longest: bool
    """Padded to the longest of a batch, or always to `longest`."""

    def __call__(self, texts: Sequence[str]) -> Tokens:
        padding = True if self.to_longest else "max_length"
        read = self.tokenizer(list(texts), padding=padding, truncation=True, max_length=self.longest, return_tensors="np")
        return dict(read.items())


def reader_of(folder: Path, model: Any) -> TokenReader:
    """The checkpoint's tokenizer, as its model wants it."""
    tokenizer = load_tokenizer(folder)
    siglip = model.config.model_type.startswith("siglip")  # trained on texts that are padded to their full length
    return TokenReader(tokenizer, longest_text(tokenizer, model), not siglip)


def check_meeting(dual: TwoTowers) -> None:
    """Raises UnusableCheckpoint when words and pictures have embeddings of different lengths."""
    found = dual.embed_texts(["a photo"]).shape[1]
    if found != dual.space.dim:
        raise UnusableCheckpoint(f"its towers do not meet: pictures have {dual.space.dim} numbers, words {found}")


class _Placing:
    """Where backbones are put, in which type of numbers, and whether torch compiles them there."""

    def __init__(self, device: str, precision: Precision, compiling: Compiling | None) -> None:
        self._device = device
        self._compiling = compiling
        halved = device.startswith("cuda") and not torch.cuda.is_bf16_supported()
        reduced = torch.float16 if halved else torch.bfloat16
        self._dtype = torch.float32 if precision is Precision.FP32 else reduced

    @property
    def precision(self) -> str:
        return {torch.float16: "fp16", torch.bfloat16: "bf16"}.get(self._dtype, "fp32")

    @property
    def device(self) -> str:
        return self._device

    def placed(self, module: torch.nn.Module) -> torch.nn.Module:
        layout = torch.channels_last if self._device.startswith("cuda") else torch.preserve_format
        return module.to(self._device, self._dtype, memory_format=layout)  # type: ignore[call-overload,no-any-return]

    def pictures(self, backbone: torch.nn.Module, one: Tensor, name: str) -> tuple[Callable[[Tensor], NDArray[Any]], bool]:
        """Of a placed backbone, of which `one` is an input; and whether it was compiled."""
        if self._compiling is None:
            return _pictures(backbone), False
        made = self._compiling.where_it_pays(
            backbone, lambda module, n: _pictures(module)(np.stack([one] * n)), name=f"{name}, pictures"
        )
        return _pictures(made), is_compiled(made)

    def words(self, backbone: torch.nn.Module, reader: TokenReader, name: str) -> Callable[[Tokens], NDArray[Any]]:
        """Of a placed backbone."""
        if self._compiling is None:
            return _words(backbone)
        return _words(
            self._compiling.where_it_pays(backbone, lambda module, n: _words(module)(reader([_TEXT] * n)), name=f"{name}, words")
        )


def _images(backbone: ImageBackbone, checkpoint: Checkpoint, placing: _Placing, model_name: str, *, text: bool) -> PictureTower:
    """Embeds a grey picture to learn the dimension."""
    processor = load_image_processor(checkpoint.path)
    grey = prepared(processor, GREY)
    features, compiled = placing.pictures(placing.placed(backbone), grey, model_name)
    dim = features(grey[None]).reshape(1, -1).shape[1]
    card = ModelCard(
        role="embedder",
        model_name=model_name,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=f"torch {torch.__version__.split('+')[0]}{', compiled' if compiled else ''}",
        device=placing.device,
        precision=placing.precision,
    )
    space = Space(collection=checkpoint.collection, model_name=model_name, dim=dim, text=text)
    return PictureTower(lambda pixels: prepared(processor, pixels), features, space, card)


def _pictures(backbone: torch.nn.Module) -> Callable[[Tensor], NDArray[Any]]:
    weight = next(backbone.parameters())

    def features(pixels: Tensor) -> NDArray[Any]:
        with torch.inference_mode():
            batch = torch.from_numpy(pixels).to(weight.device, weight.dtype, memory_format=_layout(weight))
            return np.asarray(backbone(batch).float().cpu().numpy())

    return features


def _words(backbone: torch.nn.Module | TextBackbone) -> Callable[[Tokens], NDArray[Any]]:
    device = next(backbone.parameters()).device

    def features(tokens: Tokens) -> NDArray[Any]:
        with torch.inference_mode():
            read = {name: torch.from_numpy(ids).to(device) for name, ids in tokens.items()}
            return np.asarray(backbone(**read).float().cpu().numpy())

    return features


def _layout(weight: torch.Tensor) -> torch.memory_format:
    return torch.channels_last if weight.is_cuda else torch.contiguous_format
