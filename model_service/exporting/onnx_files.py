"""Checkpoints as ONNX files in float32, from which every runtime's export is made."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from core.decode import Pixels
from model_service.backbones import WordsOfDual, load_image_backbone, load_image_processor, load_model, load_text_backbone
from model_service.encoders import TokenReader, prepared, reader_of
from model_service.exports import Wanted
from model_service.parts import Tensor
from model_service.towers import GREY, normalised

_OPSET = 18
Inputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Traced:
    """A tower in torch, with what it takes."""

    module: torch.nn.Module
    names: tuple[str, ...]
    """Of its inputs, in the order of its arguments."""
    axes: dict[str, dict[int, str]]
    example: Inputs

    def __call__(self, inputs: Inputs) -> Tensor:
        """Embeddings as torch computes them."""
        with torch.inference_mode():
            return normalised(self.module(*(torch.from_numpy(inputs[name]) for name in self.names)).float().numpy())

    def write(self, path: Path) -> None:
        arguments = tuple(torch.from_numpy(self.example[name]) for name in self.names)
        write(self.module, arguments, path, names=self.names, outputs=("embedding",), axes=self.axes | {"embedding": {0: "n"}})


@dataclass(frozen=True, slots=True)
class Pictures(Traced):
    """The image tower, with its processor."""

    processor: Any

    def prepare(self, pixels: Pixels) -> Tensor:
        return prepared(self.processor, pixels)


@dataclass(frozen=True, slots=True)
class Texts(Traced):
    """The text tower, with its tokenizer."""

    tokens: TokenReader


def image_tower(wanted: Wanted) -> Pictures:
    """Raises what `transformers` raises for a damaged folder."""
    processor = load_image_processor(wanted.checkpoint)
    example = {"pixels": np.stack([prepared(processor, GREY)] * 2)}
    return Pictures(load_image_backbone(wanted.checkpoint), ("pixels",), {"pixels": {0: "n"}}, example, processor)


def text_tower(wanted: Wanted) -> Texts:
    """Raises as `image_tower`."""
    words, pooling = wanted.checkpoint, wanted.pooling
    module = load_text_backbone(words, pooling) if pooling else WordsOfDual(load_model(words)).eval()
    reader = reader_of(wanted.checkpoint, module.model)
    example = reader(["a photo", "a photo of a dog"])
    names = tuple(name for name in ("input_ids", "attention_mask", "token_type_ids") if name in example)
    return Texts(module, names, {name: {0: "n", 1: "tokens"} for name in names}, example, reader)


def write_segmenter(model: Any, path: Path) -> str:
    """An `ultralytics` instance segmenter, for pictures of any size, as its own exporter prepares it.

    Returns a pattern of the operations that turn the head's outputs into boxes: they put pixels and probabilities into one tensor,
    whose least step in int8 would be larger than any probability.
    """
    from ultralytics.nn.modules import C2f, Detect  # noqa: PLC0415 - imported with its side effects undone, by whoever loaded the model
    from ultralytics.utils.patches import arange_patch  # noqa: PLC0415 - as above

    module = deepcopy(model).float().eval().requires_grad_(requires_grad=False).fuse()
    for layer in module.modules():
        if isinstance(layer, Detect):
            layer.dynamic, layer.export, layer.format, layer.shape = True, True, "onnx", None
            layer.max_det, layer.agnostic_nms = 300, True
            if hasattr(module, "pe") and hasattr(layer, "fuse") and not hasattr(layer, "lrpc"):  # YOLOE with words of its own
                layer.fuse(module.pe)
        elif isinstance(layer, C2f):
            layer.forward = layer.forward_split
    axes = {"images": {0: "n", 2: "h", 3: "w"}, "found": {0: "n", 2: "anchors"}, "prototypes": {0: "n", 2: "mh", 3: "mw"}}
    if getattr(module, "end2end", False):
        axes["found"] = {0: "n"}
    example = torch.zeros(1, 3, 640, 640)
    with torch.no_grad():
        module(example)
    patched = arange_patch(dynamic=True)
    write(module, (example,), path, names=("images",), outputs=("found", "prototypes"), axes=axes, within=patched)
    return rf".*model\.{len(module.model) - 1}/(?!cv|proto|one2one|lrpc).*"


def write(
    module: torch.nn.Module,
    arguments: tuple[torch.Tensor, ...],
    path: Path,
    *,
    names: Sequence[str],
    outputs: Sequence[str],
    axes: dict[str, dict[int, str]],
    within: AbstractContextManager[Any] | None = None,
) -> None:
    """By tracing: the exporter that torch prefers wants a further library, and refuses models that this one takes."""
    with warnings.catch_warnings(), within or nullcontext(), torch.no_grad():
        warnings.simplefilter("ignore")  # it warns of itself, and of every shape that the trace makes constant
        torch.onnx.export(
            module,
            arguments,
            str(path),
            input_names=list(names),
            output_names=list(outputs),
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
