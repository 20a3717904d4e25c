"""Towers over any runtime: what prepares, what computes, and the unit length of what comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.decode import Pixels
from core.schemas import ModelCard, Space
from model_service.parts import Tensor

Tokens = Mapping[str, NDArray[np.int64]]
"""`input_ids`, `attention_mask` and what else the model reads, each (n, tokens)."""

GREY: Pixels = np.full((64, 64, 3), 128, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class PictureTower:
    """Pictures alone."""

    preparation: Callable[[Pixels], Tensor]
    features: Callable[[Tensor], NDArray[Any]]
    """Of (n, 3, h, w): (n, dim), of any length."""
    space: Space
    card: ModelCard
    at_once: int = 1

    def prepare(self, pixels: Pixels) -> Tensor:
        return self.preparation(pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return normalised(self.features(np.stack(prepared)))


@dataclass(frozen=True, slots=True)
class TwoTowers:
    """Pictures and words."""

    images: PictureTower
    tokens: Callable[[Sequence[str]], Tokens]
    text_features: Callable[[Tokens], NDArray[Any]]

    @property
    def space(self) -> Space:
        return self.images.space

    @property
    def card(self) -> ModelCard:
        return self.images.card

    @property
    def at_once(self) -> int:
        return self.images.at_once

    def prepare(self, pixels: Pixels) -> Tensor:
        return self.images.prepare(pixels)

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        return self.images.embed(prepared)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        return normalised(self.text_features(self.tokens(texts)))


def normalised(features: NDArray[Any]) -> Tensor:
    rows = np.asarray(features, dtype=np.float32).reshape(len(features), -1)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), dtype=np.float32)
