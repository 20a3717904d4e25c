"""`clip-retrieval inference`: its reader, mapper and writer of NumPy files, put together as its worker does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clip.model
import torch
from all_clip import load_clip
from clip_retrieval.clip_inference.mapper import ClipMapper
from clip_retrieval.clip_inference.reader import FilesReader
from clip_retrieval.clip_inference.runner import Runner
from clip_retrieval.clip_inference.writer import NumpyWriter

from benchmarks.peers.clock import Clock

_BATCH = 32
"""Its own, 256, is meant for a GPU, and most of the pictures here."""
_KINDS = {"enable_image": True, "enable_text": False, "enable_metadata": False}


class _Told:
    """Where its worker writes statistics."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(self) -> None: ...

    def end(self) -> None: ...

    def __call__(self, statistics: dict[str, Any]) -> None:
        self._clock.done(statistics["sample_count"])


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    model = {"clip_model": str(_checkpoint(scratch / "ViT-B-32.pt")), "use_jit": False, "warmup_batch_size": _BATCH}
    _, preprocess, tokenizer = load_clip(**model)
    folder = str(files[0].parent)
    Runner(
        lambda sampler: FilesReader(sampler, preprocess, tokenizer, folder, _BATCH, workers, **_KINDS),
        lambda: ClipMapper(**_KINDS, **model, use_mclip=False, mclip_model=""),
        lambda number: NumpyWriter(number, str(scratch / "embeddings"), output_partition_count=1, **_KINDS),
        lambda _: _Told(clock),
        output_partition_count=1,
    )(0)


def _checkpoint(path: Path) -> Path:
    """OpenAI's ViT-B/32 with random weights."""
    torch.save(clip.model.CLIP(512, 224, 12, 768, 32, 77, 49408, 512, 8, 12).state_dict(), path)
    return path
