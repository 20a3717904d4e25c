"""`sentence-transformers`: `encode` of opened pictures, as its page on image search shows."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from sentence_transformers import SentenceTransformer

from benchmarks.peers.clock import Clock

_BATCH = 32
"""Its own."""


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    model = SentenceTransformer(str(models / "transformers"))
    for start in range(0, len(files), _BATCH):
        found = model.encode([Image.open(file) for file in files[start : start + _BATCH]], batch_size=_BATCH)
        clock.done(len(found))
