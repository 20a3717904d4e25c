"""`open_clip`: `create_model_and_transforms`, its own transform behind a DataLoader, as its evaluation feeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.clock import Clock

_BATCH = 32


class _Pictures(Dataset[torch.Tensor]):
    def __init__(self, files: list[Path], transform: Any) -> None:
        self._files = files
        self._transform = transform

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> torch.Tensor:
        found: torch.Tensor = self._transform(Image.open(self._files[index]))
        return found


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained=None)
    model.eval()
    with torch.no_grad():
        for batch in DataLoader(_Pictures(files, transform), batch_size=_BATCH, num_workers=workers):
            model.encode_image(batch, normalize=True).numpy()
            clock.done(len(batch))
