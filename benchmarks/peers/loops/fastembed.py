"""`fastembed`: `ImageEmbedding.embed` of file names, in its own process, or in several as its page on throughput advises for many."""

from __future__ import annotations

from pathlib import Path

from fastembed import ImageEmbedding

from benchmarks.peers.clock import Clock

_BATCH = 16
"""Its own."""


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    model = ImageEmbedding("Qdrant/clip-ViT-B-32-vision", specific_model_path=str(models / "fastembed"), lazy_load=workers > 0)
    for _ in model.embed([str(file) for file in files], batch_size=_BATCH, parallel=workers or None):
        clock.done(1)
