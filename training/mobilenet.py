"""The shipped model's MobileNetV2, read from its graph into `transformers`: start weights that every clone has.

Its batch norms are folded into the convolutions; here they become norms that only add the bias. They have seen no statistics, so they
have to stay frozen in training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper
from transformers import MobileNetV2Config, MobileNetV2ImageProcessor, MobileNetV2Model

_SIDE = 224


def read(graph_file: Path) -> tuple[MobileNetV2Model, Any]:
    """The backbone and its image processor. Raises ValueError when the graph holds no MobileNetV2."""
    graph = onnx.load(str(graph_file)).graph
    stored = {_plain(tensor.name): torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    model = MobileNetV2Model(MobileNetV2Config(image_size=_SIDE, tf_padding=True)).eval()
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    if len(convolutions) < len(layers):
        raise ValueError(f"expected {len(layers)} convolutions, found {len(convolutions)}")
    with torch.no_grad():
        for node, layer, norm in zip(convolutions, layers, norms, strict=False):
            layer.weight.copy_(_shaped(stored[_plain(node.input[1])], layer.weight))
            norm.weight.fill_((1.0 + norm.eps) ** 0.5)
            norm.bias.copy_(stored[_plain(node.input[2])].float())
    processor = MobileNetV2ImageProcessor(
        size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
        resample=3,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return model, processor


def _plain(name: str) -> str:
    """Weights kept in half precision are cast in the graph, under the name without the suffix."""
    return name.removesuffix(".half")


def _shaped(weight: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if weight.shape != like.shape:
        raise ValueError(f"expected a convolution of {tuple(like.shape)}, found {tuple(weight.shape)}")
    return weight.float()
