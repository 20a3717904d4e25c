"""Photos to ingest, of the size that cameras and phones send: real ones enlarged where there are some, else drawn."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SHARED = Path(os.environ.get("IMAGESEARCH_SHARED", "../shared"))
_SIDES = (900, 1100, 1300, 1500)
"""Long sides in pixels: 0.5 to 1.7 megapixels."""


def write(folder: Path, count: int) -> bool:
    """Write so many JPEGs, no two alike. Returns whether they are of real photos."""
    folder.mkdir(parents=True)
    originals = list(_originals())
    random = np.random.default_rng(0)
    for n in range(count):
        picture = originals[n % len(originals)] if originals else _drawn(random)
        side = _SIDES[n % len(_SIDES)] + n // max(1, len(originals))  # the same bytes would be the same image
        scale = side / max(picture.size)
        large = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC)
        large.save(folder / f"{n:05d}.jpg", "JPEG", quality=90)
    return bool(originals)


def _originals() -> Iterator[Image.Image]:
    for name in ("coco-80-masks.tar", "flickr-80.tar"):
        path = SHARED / "data" / "photos" / name
        if not path.exists():
            continue
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg") and (content := tar.extractfile(member)) is not None:
                    yield Image.open(io.BytesIO(content.read())).convert("RGB")


def _drawn(random: np.random.Generator) -> Image.Image:
    """Clouds of colour with some grain, which compress about as photos do."""
    small = Image.fromarray(random.integers(0, 255, (12, 16, 3), dtype=np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    grain = random.normal(0, 12, (480, 640, 1))
    return Image.fromarray(np.clip(np.asarray(small) + grain, 0, 255).astype(np.uint8))
