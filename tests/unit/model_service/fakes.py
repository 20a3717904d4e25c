"""A profile without tensors: embeddings that can be predicted, and failures on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import numpy as np

from core.decode import Pixels
from core.schemas import ModelCard, SegmentMode, Space
from model_service.parts import Instance, Parts, Tensor

POISON = "poison"
"""A text that no batch survives."""


def card(role: str, name: str) -> ModelCard:
    return ModelCard.model_validate(
        {
            "role": role,
            "model_name": name,
            "source": name,
            "revision": "1",
            "runtime": "fake",
            "device": "cpu",
            "precision": "fp32",
        }
    )


class FakeTower:
    """Embeds a picture as its mean colour."""

    def __init__(self, name: str, *, text: bool, duration_s: float = 0.0) -> None:
        self.space = Space(collection=f"{name.lower()}-1", model_name=name, dim=4, text=text)
        self.card = card("embedder", name)
        self.at_once = 1
        self.batches: list[int] = []
        self._duration_s = duration_s

    def prepare(self, pixels: Pixels) -> Tensor:
        colour = pixels.reshape(-1, 3).mean(axis=0).astype(np.float32)
        return np.append(colour, np.float32(1.0))

    def embed(self, prepared: Sequence[Tensor]) -> Tensor:
        self.batches.append(len(prepared))
        time.sleep(self._duration_s)
        rows = np.stack(prepared)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class FakeTexts:
    """Embeds a text as its length."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.gate = threading.Event()
        self.gate.set()

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        self.gate.wait(10)
        if POISON in texts:
            raise ValueError("poisoned")
        return np.array([[len(text), 0, 0, 1] for text in texts], dtype=np.float32)


class FakeSegmenter:
    """Finds the left half of every picture."""

    card = card("segmenter", "Halves")
    at_once = 1

    def segment(self, pixels: Sequence[Pixels], mode: SegmentMode) -> list[list[Instance]]:
        return [[_left_half(picture)] for picture in pixels]


def _left_half(picture: Pixels) -> Instance:
    height, width = picture.shape[:2]
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[:, : width // 2] = True
    return Instance("half", 0.9, (0.0, 0.0, width / 2, float(height)), mask, 0.5)


def fake_parts(*, duration_s: float = 0.0, segmenter: bool = True, profile: str = "fake", fingerprint: str = "f1") -> Parts:
    towers = (FakeTower("CLIP", text=True, duration_s=duration_s), FakeTower("ResNet", text=False))
    return Parts(
        profile=profile,
        text_tower=FakeTexts(towers[0].space),
        image_towers=towers,
        spaces=tuple(tower.space for tower in towers),
        segmenter=FakeSegmenter() if segmenter else None,
        notice=None,
        fingerprint=fingerprint,
    )
