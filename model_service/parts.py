"""What a profile is made of, as the engine sees it: towers that embed, and a segmenter. Blocking; called on the engine's threads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.decode import Pixels
from core.masks import Mask
from core.schemas import BBox, ModelCard, SegmentMode, Space

Tensor = NDArray[np.float32]
"""A prepared picture, as its tower's `prepare` made it; or embeddings of shape (n, dim), L2-normalised."""


class ImageTower(Protocol):
    """Pictures to embeddings of one space."""

    @property
    def space(self) -> Space: ...

    @property
    def card(self) -> ModelCard: ...

    @property
    def at_once(self) -> int:
        """Threads that may call `embed` at once, each for its share of the cores."""
        ...

    def prepare(self, pixels: Pixels) -> Tensor:
        """Resize, crop and normalise one upright RGB picture. Any thread may call it."""
        ...

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        """(n, dim) float32, L2-normalised, in input order."""
        ...


class TextTower(Protocol):
    """Words to embeddings of the same space as the ImageTower beside it. One thread at a time: a tokenizer may keep its padding as state."""

    @property
    def space(self) -> Space: ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, dim) float32, L2-normalised, in input order; what is longer than the model reads is cut off."""
        ...


@dataclass(frozen=True, slots=True)
class Instance:
    """One object in the pixels that were given: `bbox` in those pixels, `mask` at most 640 on the long side and of the same aspect."""

    label: str
    score: float
    bbox: BBox
    mask: Mask
    area: float


class Segmenter(Protocol):
    """Pictures to instances."""

    @property
    def card(self) -> ModelCard: ...

    @property
    def at_once(self) -> int:
        """As of an ImageTower."""
        ...

    def segment(self, pixels: Sequence[Pixels], mode: SegmentMode) -> list[list[Instance]]:
        """The instances of each picture, best first, bounded in number; `mode` is never NONE."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """A loaded profile. `image_towers[0]` shares its space with `text_tower`.

    `spaces` are the towers' own, in collections of this fingerprint alone: what other models, segmenters or limits made of a picture
    lies beside it and not between.
    """

    profile: str
    text_tower: TextTower
    image_towers: tuple[ImageTower, ...]
    spaces: tuple[Space, ...]
    segmenter: Segmenter | None
    notice: str | None
    fingerprint: str
