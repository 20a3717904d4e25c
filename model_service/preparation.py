"""What a checkpoint's own processor and tokenizer do, told in a few numbers, so that an export needs neither `transformers` nor torch.

Importing those takes longer than everything else in a start. The exporter takes the numbers from the processor and compares, on pictures
and texts of all sizes; where the two differ in anything, the export keeps none, and the processor itself is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict
from tokenizers import Tokenizer

from core.decode import Pixels
from model_service.framing import bounded_aspect
from model_service.parts import Tensor

TOKENIZER = "tokenizer.json"

Side = tuple[int, int]
"""Height and width."""


class Preparation(BaseModel):
    """From pixels to a tower's input: resize (the short side to `shortest`, or all of it to `squashed`), cut the centre out, normalise."""

    model_config = ConfigDict(frozen=True)
    shortest: int | None = None
    squashed: Side | None = None
    resample: int = 3
    crop: Side | None = None
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __call__(self, pixels: Pixels) -> Tensor:
        """(3, h, w)."""
        picture = Image.fromarray(np.ascontiguousarray(bounded_aspect(pixels)))
        rows = np.asarray(self._resized(picture))
        if self.crop is not None:
            rows = _centre(rows, self.crop)
        prepared = np.empty((3, *rows.shape[:2]), dtype=np.float32)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):  # six times as fast as all at once
            np.multiply(rows[..., channel], np.float32(self.scale / std), out=prepared[channel], dtype=np.float32)
            prepared[channel] -= np.float32(mean / std)
        return prepared

    def _resized(self, picture: Image.Image) -> Image.Image:
        resample = Image.Resampling(self.resample)
        if self.squashed is not None:
            return picture.resize(self.squashed[::-1], resample)
        if self.shortest is None:
            return picture
        width, height = picture.size
        short, long = min(width, height), max(width, height)
        longer = int(self.shortest * long / short)
        return picture.resize((self.shortest, longer) if width <= height else (longer, self.shortest), resample)


class Wording(BaseModel):
    """From texts to token ids: how `tokenizer.json` beside it is to be used."""

    model_config = ConfigDict(frozen=True)
    names: tuple[str, ...]
    max_tokens: int
    pad_id: int
    pad_token: str
    to_longest: bool
    """Padded to the longest text of the batch, or always to `max_tokens`."""


@dataclass(frozen=True, slots=True)
class Words:
    """A tokenizer without `transformers`. Any thread may call it."""

    tokenizer: Tokenizer
    names: tuple[str, ...]

    @classmethod
    def load(cls, folder: Path, wording: Wording) -> Words:
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        tokenizer.enable_truncation(wording.max_tokens)
        tokenizer.enable_padding(
            pad_id=wording.pad_id, pad_token=wording.pad_token, length=None if wording.to_longest else wording.max_tokens
        )
        return cls(tokenizer, wording.names)

    def __call__(self, texts: Sequence[str]) -> Mapping[str, NDArray[np.int64]]:
        encoded = self.tokenizer.encode_batch(list(texts))
        columns: dict[str, list[Any]] = {
            "input_ids": [tokens.ids for tokens in encoded],
            "attention_mask": [tokens.attention_mask for tokens in encoded],
            "token_type_ids": [tokens.type_ids for tokens in encoded],
        }
        return {name: np.asarray(columns[name], dtype=np.int64) for name in self.names}


def told_of(processor: Any) -> Preparation | None:
    """The numbers of a `transformers` image processor, as far as they can be told. To be compared before it is believed."""
    size, crop = dict(getattr(processor, "size", None) or {}), dict(getattr(processor, "crop_size", None) or {})
    resized, cropped = getattr(processor, "do_resize", False), getattr(processor, "do_center_crop", False)
    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    if getattr(processor, "crop_pct", None) is not None and (shortest := size.get("shortest_edge", 384)) < 384:  # ConvNeXT's kind
        size, cropped = {"shortest_edge": int(shortest / processor.crop_pct)}, True
        crop = {"height": shortest, "width": shortest}
    if not getattr(processor, "do_rescale", False) or not resized:
        return None
    return Preparation(
        shortest=size.get("shortest_edge"),
        squashed=(size["height"], size["width"]) if "height" in size else None,
        resample=int(processor.resample),
        crop=(crop["height"], crop["width"]) if cropped and "height" in crop else None,
        scale=float(processor.rescale_factor),
        mean=tuple(mean) if mean and getattr(processor, "do_normalize", False) else (0.0, 0.0, 0.0),
        std=tuple(std) if std and getattr(processor, "do_normalize", False) else (1.0, 1.0, 1.0),
    )


def _centre(rows: NDArray[np.uint8], side: Side) -> NDArray[np.uint8]:
    height, width = side
    top, left = (rows.shape[0] - height) // 2, (rows.shape[1] - width) // 2
    return rows[top : top + height, left : left + width]
