"""`transformers` backbones as modules: what is taken from them, and the linear map that may follow.

A checkpoint folder is a `transformers` one. A `projection.safetensors` in it (`weight` (dim, features), `bias` (dim,) or none) is
applied to the pooled output. The service serves these modules, and `training` trains the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PROJECTION = "projection.safetensors"
Pooling = Literal["mean", "cls", "pooler"]


class UnusableCheckpoint(Exception):
    """The checkpoint does not hold what it takes; `str` says what is missing."""


class ImageBackbone(nn.Module):
    """Prepared pixels (n, 3, h, w) to features (n, dim), not normalised. Of a dual encoder, its image tower."""

    def __init__(self, model: Any, projection: nn.Linear | None = None) -> None:
        super().__init__()
        self.model, self.projection = model, projection

    def forward(self, pixels: Tensor) -> Tensor:
        dual = hasattr(self.model, "get_image_features")
        output = self.model.get_image_features(pixel_values=pixels) if dual else self.model(pixel_values=pixels)
        return _projected(pooled(output).flatten(1), self.projection)


class WordsOfDual(nn.Module):
    """The text tower of a dual encoder: what its tokenizer makes, to features (n, dim), not normalised."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise UnusableCheckpoint("it is no dual encoder of words and pictures")
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        read = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        given = {name: tensor for name, tensor in read.items() if tensor is not None}
        return pooled(self.model.get_text_features(input_ids=input_ids, **given)).flatten(1)


class TextBackbone(nn.Module):
    """Token ids and attention mask, both (n, tokens), to features (n, dim), not normalised."""

    def __init__(self, model: Any, pooling: Pooling, projection: nn.Linear | None = None) -> None:
        super().__init__()
        self.model, self.pooling, self.projection = model, pooling, projection

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        """`token_type_ids` say nothing of a single sentence, and are left out."""
        output = self.model(input_ids=input_ids, attention_mask=attention_mask)
        return _projected(self._sentence(output, attention_mask), self.projection)

    def _sentence(self, output: Any, attention_mask: Tensor) -> Tensor:
        if self.pooling == "pooler":
            return pooled(output)
        tokens: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return tokens[:, 0]
        weights = attention_mask.unsqueeze(-1).to(tokens.dtype)
        return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def load_model(folder: Path, *, may_lack: str | None = None) -> Any:
    """The checkpoint's model in float32, ready to answer. Raises UnusableCheckpoint, and what `transformers` raises for a damaged folder.

    Weights whose name begins with `may_lack` may be absent: nothing is taken from them.
    """
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    model, report = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32, output_loading_info=True
    )
    missing = sorted(map(str, report["missing_keys"]))
    absent = [name for name in missing if may_lack is None or not name.startswith(may_lack)]
    if absent:  # transformers fills these with random numbers
        raise UnusableCheckpoint(f"it lacks {len(absent)} weights, {absent[0]} among them")
    return model.eval()


def load_image_backbone(folder: Path) -> ImageBackbone:
    """As `load_model`, with its projection."""
    return ImageBackbone(load_model(folder), load_projection(folder)).eval()


def load_text_backbone(folder: Path, pooling: Pooling) -> TextBackbone:
    """As `load_model`, with its projection."""
    may_lack = None if pooling == "pooler" else "pooler."
    return TextBackbone(load_model(folder, may_lack=may_lack), pooling, load_projection(folder)).eval()


def load_projection(folder: Path) -> nn.Linear | None:
    """Raises UnusableCheckpoint when the file is there and is no linear map."""
    path = folder / PROJECTION
    if not path.is_file():
        return None
    stored = load_file(path)
    weight, bias = stored.get("weight"), stored.get("bias")
    if weight is None or weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise UnusableCheckpoint(f"{PROJECTION} holds no linear map")
    projection = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    projection.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    return projection


def save_projection(projection: nn.Linear, folder: Path) -> None:
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in projection.state_dict().items()}, folder / PROJECTION)


def load_image_processor(folder: Path) -> Any:
    """The checkpoint's own, on Pillow: the resampling that CLIP was trained with, and free of shared state."""
    return transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")


def load_tokenizer(folder: Path) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def longest_text(tokenizer: Any, model: Any) -> int:
    """How many tokens the model reads."""
    config = getattr(model.config, "text_config", model.config)
    positions = getattr(config, "max_position_embeddings", None) or 512
    return min(int(tokenizer.model_max_length), int(positions))


def pooled(output: Any) -> Tensor:
    """`transformers` 5 answers an output object whose pooled output is the projected embedding; 4 answered the tensor."""
    if isinstance(output, Tensor):
        return output
    found = getattr(output, "pooler_output", None)
    return torch.as_tensor(output.last_hidden_state[:, 0] if found is None else found)


def _projected(features: Tensor, projection: nn.Linear | None) -> Tensor:
    if projection is None:
        return features
    projected: Tensor = projection(features)
    return projected
