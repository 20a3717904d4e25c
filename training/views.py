"""What a tower sees: changed at random while it learns, as served when it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from core.decode import Pixels
from model_service.crops import WORKING_SIDE, working_copy
from model_service.encoders import prepared
from training.pictures import read

_WIDE: Pixels = np.full((96, 128, 3), 128, dtype=np.uint8)
_EPOCH_STRIDE = 1_000_003


class ServedViews(Dataset[Tensor]):
    """Each picture as the model service would prepare it: (3, h, w)."""

    def __init__(self, paths: Sequence[Path], processor: Any) -> None:
        self._paths, self._processor = paths, processor

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        return torch.from_numpy(prepared(self._processor, working_copy(read(self._paths[index], min_side=WORKING_SIDE // 2))))


class RandomViews(Dataset[tuple[Tensor, int]]):
    """Each picture cropped, mirrored and tinted at random, with its row. A view follows from seed, epoch and row alone."""

    def __init__(self, paths: Sequence[Path], processor: Any, *, smallest_crop: float, seed: int, epoch: int) -> None:
        self._paths = paths
        self._start = seed * _EPOCH_STRIDE + epoch
        self._height, self._width = prepared(processor, _WIDE).shape[1:]
        self._view = v2.Compose(
            [
                v2.RandomResizedCrop((self._height, self._width), scale=(smallest_crop, 1.0), antialias=True),
                v2.RandomHorizontalFlip(),
                v2.ColorJitter(brightness=0.25, contrast=0.25, saturation=0.25),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(list(processor.image_mean), list(processor.image_std)),
            ]
        )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = read(self._paths[index], min_side=2 * min(self._height, self._width))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._start * _EPOCH_STRIDE + index)
            view: Tensor = self._view(torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1))
        return view, index
