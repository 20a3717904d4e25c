"""Pictures to calibrate on and to compare with: those of the watched folder, else drawn ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from core.decode import IMAGE_SUFFIXES, DecodeLimits, Pixels
from core.decoding import Decoder
from core.errors import ImageRejected
from model_service.crops import WORKING_SIDE, working_copy
from model_service.exports import ENOUGH_PICTURES, Origin

PICTURES = 256
"""Half of them calibrate, the other half are held out."""
_DRAWN = 96
_LOOKED_AT = 20_000  # directory entries


def gathered(folder: Path, decoder: Decoder, *, wanted: int = PICTURES) -> tuple[list[Pixels], Origin]:
    """At most `wanted` pictures from all over the folder; drawn ones when it holds too few. Raises Unavailable where the decoder does."""
    paths = picture_paths(folder, 16 * wanted)
    step = max(1, len(paths) // wanted)
    found: list[Pixels] = []
    for path in [*paths[::step], *(path for n, path in enumerate(paths) if n % step)]:
        if len(found) == wanted:
            break
        pixels = _read(path, decoder)
        if pixels is not None:
            found.append(pixels)
    if len(found) >= min(wanted, ENOUGH_PICTURES):
        return found, "pictures"
    return list(drawn(min(wanted, _DRAWN))), "drawn"


def picture_paths(folder: Path, at_most: int) -> list[Path]:
    """Files that look like pictures by their names, in a fixed order; a huge folder is not walked to its end."""
    found: list[Path] = []
    looked_at = 0
    for place, folders, names in os.walk(folder):
        folders.sort()
        found += [Path(place, name) for name in sorted(names) if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        looked_at += len(names) + len(folders)
        if len(found) >= at_most or looked_at > _LOOKED_AT:
            break
    return found[:at_most]


def drawn(count: int, *, seed: int = 0) -> Iterator[Pixels]:
    """Clouds whose frequencies fall off as those of photos do, with a few shapes before them."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        picture = Image.fromarray(_cloud(rng, 288, 384))
        brush = ImageDraw.Draw(picture)
        for _ in range(rng.integers(0, 5)):
            corners = rng.integers(0, (384, 288), size=(2, 2))
            (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
            colour = tuple(int(level) for level in rng.integers(0, 256, 3))
            shape = brush.ellipse if rng.random() < 0.5 else brush.rectangle
            shape((int(left), int(top), int(right), int(bottom)), fill=colour)
        yield np.asarray(picture)


def _cloud(rng: np.random.Generator, height: int, width: int) -> Pixels:
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(height), np.fft.rfftfreq(width), indexing="ij"))
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / frequency ** rng.uniform(0.8, 1.4)
    clouds = np.fft.irfft2(spectrum, s=(height, width))
    mixed = np.einsum("ij,jhw->hwi", rng.normal(size=(3, 3)) + np.eye(3), clouds)
    spread = rng.uniform(20, 70) / max(float(mixed.std()), 1e-9)
    return np.asarray(np.clip(rng.uniform(60, 190) + spread * (mixed - mixed.mean()), 0, 255), dtype=np.uint8)


def _read(path: Path, decoder: Decoder) -> Pixels | None:
    try:
        if not path.is_file() or path.stat().st_size > DecodeLimits().max_bytes:  # a pipe has no end
            return None
        return working_copy(decoder.decode(path.read_bytes(), min_side=WORKING_SIDE // 2).pixels)
    except (ImageRejected, OSError):
        return None
