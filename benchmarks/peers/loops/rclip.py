"""`rclip`: `ensure_index` of a folder, and `search` of what is in its database."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rclip import db, main, model
from rclip.utils import preprocess

from benchmarks.peers.clock import Clock

_BATCH = 8
"""Its own."""
_SIDE = 224
"""What it shows its model is 256 pixels wide; ViT-B/32 looks at 224, a quarter less to compute."""
_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_ASKED = 10


class _Timed(model.Model):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def compute_preprocessed_image_features(self, preprocessed_images: Any, *, for_indexing: bool = False) -> Any:
        found = super().compute_preprocessed_image_features(preprocessed_images, for_indexing=for_indexing)
        self._clock.done(len(found))
        return found


def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
    os.environ["RCLIP_DATADIR"] = str(models / "rclip")
    preprocess.IMAGE_SIZE = _SIDE
    database = db.DB(scratch / "db.sqlite3")
    rclip = main.RClip(_Timed(clock), database, _BATCH, None)
    rclip.ensure_index(str(files[0].parent))
    rclip.close()
    database.close()


def search(count: int, models: Path, scratch: Path) -> dict[str, float]:
    """Of so many vectors. Median milliseconds: of a search, and of what it does after they are read."""
    os.environ["RCLIP_DATADIR"] = str(models / "rclip")
    _give_vocabulary(models / "rclip" / "tokenizer")
    random = np.random.default_rng(0)
    vectors = random.normal(size=(count, model.Model.VECTOR_SIZE)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    database = db.DB(scratch / "db.sqlite3")
    for n, vector in enumerate(vectors):
        path = f"{scratch}/{n // 1000:04d}/photo-{n:07d}.jpg"
        database.upsert_image(
            db.NewImage(filepath=path, modified_at=0.0, size=500_000, vector=vector.tobytes(), hash=f"{n:064x}"), commit=False
        )
    database.commit()
    asked = model.Model()
    rclip = main.RClip(asked, database, _BATCH, None)
    whole = _median_ms(lambda n: rclip.search(f"an old red bicycle {n}", str(scratch)))
    compared = _median_ms(lambda n: asked.compute_similarities_to_text(vectors, [f"a child at the beach {n}"], []))
    database.close()
    return {"search_ms": whole, "compared_ms": compared}


def _give_vocabulary(folder: Path) -> None:
    """What it would download; `open_clip`, which is installed for this alone and not imported, has the same file."""
    spec = importlib.util.find_spec("open_clip")
    if spec is None or spec.submodule_search_locations is None:
        raise RuntimeError("open_clip is not installed, which has the vocabulary")
    folder.mkdir(exist_ok=True)
    shutil.copy(Path(spec.submodule_search_locations[0]) / _VOCABULARY, folder)


def _median_ms(ask: Callable[[int], object]) -> float:
    ask(_ASKED)
    seconds = []
    for n in range(_ASKED):
        started = time.perf_counter()
        ask(n)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * 1000
