"""From which cosine on two pictures are one: small changes of a photo against the most alike of all other photos."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from benchmarks.ways.photos import Models, Vectors, pixels_of
from benchmarks.ways.tables import markdown
from benchmarks.ways.worlds import Clothes, Coco, Flickr
from core.decode import Pixels

Change = Callable[[Image.Image], Image.Image]
Cosines = NDArray[np.float32]

THRESHOLDS = tuple(round(0.85 + step / 100, 2) for step in range(15))
MOST_WRONG = 0.01
"""Of the photos of any set, those that may have another one above the threshold."""
_OF_EACH = 120
"""Photos of each set that are changed."""


def _smaller(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS)


def _cropped(share: float) -> Change:
    """Without that share of the width on the left and of the height on the top."""
    return lambda image: image.crop((round(image.width * share), round(image.height * share), image.width, image.height))


def _turned(degrees: float) -> Change:
    """Turned, and cut so that no corner is empty."""

    def change(image: Image.Image) -> Image.Image:
        lost = round(max(image.size) * np.sin(np.deg2rad(degrees)) / 2) + 1
        return image.rotate(degrees, Image.Resampling.BICUBIC).crop((lost, lost, image.width - lost, image.height - lost))

    return change


def _brighter(factor: float) -> Change:
    return lambda image: ImageEnhance.Brightness(image).enhance(factor)


CHANGES: dict[str, tuple[Change, int]] = {
    "brighter by 20 %": (_brighter(1.2), 90),
    "darker by 30 %": (_brighter(0.7), 90),
    "JPEG q40": (lambda image: image, 40),
    "half the size": (_smaller, 90),
    "mirrored": (ImageOps.mirror, 90),
    "cropped by 5 %": (_cropped(0.05), 90),
    "turned by 3°": (_turned(3), 90),
    "cropped by 10 %": (_cropped(0.1), 90),
    "black and white": (lambda image: ImageOps.grayscale(image).convert("RGB"), 90),
}
"""What people and programs do to a photo before they store it again, and with which quality."""


def changed(photo: bytes, change: str) -> bytes:
    """The photo as JPEG after that change."""
    how, quality = CHANGES[change]
    stored = io.BytesIO()
    with Image.open(io.BytesIO(photo)) as image:
        how(image.convert("RGB")).save(stored, "JPEG", quality=quality)
    return stored.getvalue()


def nearest_other(vectors: Vectors) -> Cosines:
    """For each picture the cosine of the most alike other one."""
    similar: Vectors = vectors @ vectors.T
    np.fill_diagonal(similar, -1)
    return similar.max(axis=1)


def threshold(nearest: Mapping[str, Cosines]) -> float:
    """The lowest at which no set has more than `MOST_WRONG` of its photos taken for another; 1 where there is none."""
    kept = [each for each in THRESHOLDS if all((of_set >= each).mean() <= MOST_WRONG for of_set in nearest.values())]
    return min(kept, default=1.0)


def section(coco: Coco, flickr: Flickr, clothes: Mapping[str, Clothes], models: Models, seed: int) -> list[str]:
    sets: dict[str, Coco | Flickr | Clothes] = {
        "COCO, ≤ 640 pixels": coco,
        "Flickr8k, 224": flickr,
        **{f"clothing {split}, ≥ 176": each for split, each in clothes.items()},
    }
    nearest = nearest_other(np.concatenate([each.library.whole for each in sets.values()]))
    ends = np.cumsum([len(each.files) for each in sets.values()])
    of_set = dict(zip(sets, np.split(nearest, ends[:-1]), strict=True))
    chance = np.random.default_rng(seed)
    halves = {name: chance.permutation(len(each)) < len(each) // 2 for name, each in of_set.items()}
    sides = [
        {name: each[half == side] for (name, each), half in zip(of_set.items(), halves.values(), strict=True)}
        for side in (True, False)
    ]
    chosen = [threshold(side) for side in sides]
    wrong = [
        max(float((each >= limit).mean()) for each in side.values()) for limit, side in zip(chosen, sides[::-1], strict=True)
    ]
    shown = sorted({*chosen, 0.9, 0.92, 0.94, 0.96, 0.98})
    alike = {name: _alike(name, photos, models, chance) for name, photos in sets.items()}
    return [
        "## Near-duplicates",
        "",
        f"Chosen on one half of the photos and on the other: {chosen[0]} and {chosen[1]}. "
        f"Taken for another on what is left: {wrong[0]:.1%} and {wrong[1]:.1%} of a set at most.",
        "",
        *markdown(
            ["other photos at", *map(str, shown)],
            [[f"{name} ({len(each):,})", *(f"{(each >= limit).sum()}" for limit in shown)] for name, each in of_set.items()],
        ),
        *markdown(
            [f"the same photo at {max(chosen)}", *CHANGES],
            [
                [name, *(f"{(each >= max(chosen)).mean():.0%}" for each in of_changes.values())]
                for name, of_changes in alike.items()
            ],
        ),
    ]


def _alike(name: str, photos: Coco | Flickr | Clothes, models: Models, chance: np.random.Generator) -> dict[str, Cosines]:
    """Each change's cosines with what was changed."""
    rows = np.sort(chance.permutation(len(photos.files))[:_OF_EACH])

    def pictures(change: str) -> Callable[[], map[Pixels]]:
        return lambda: map(pixels_of, (changed(photos.files[row], change) for row in rows))

    key = f"{name.split(',', maxsplit=1)[0]}-{rows.sum()}"
    whole = photos.library.whole[rows]
    return {
        change: (models.pictures(f"changed-{key}-{n}", pictures(change)) * whole).sum(axis=1) for n, change in enumerate(CHANGES)
    }
