"""The shared folder's photos and what is known of them: COCO's objects, Flickr8k's captions, clothing's labels."""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from benchmarks.ways.photos import Library, Models, Rows
from training.proposals import coco

_CLOTHES = {"longsleeve": "long sleeve shirt", "outwear": "jacket"}
_NAMED = (3, 200)
"""Least and most photos that a noun is asked for with."""


@dataclass(frozen=True, slots=True)
class Coco:
    """80 photos. `largest` (categories, photos): the part of the photo that the largest object of the category covers; 0: none is there."""

    photos: tuple[coco.Photo, ...]
    files: tuple[bytes, ...]
    library: Library
    categories: tuple[str, ...]
    largest: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Flickr:
    """Flickr8k's 1,000 test photos at 224 pixels. `said` (nouns, photos): how many of the five captions have the noun."""

    files: tuple[bytes, ...]
    library: Library
    captions: tuple[tuple[str, ...], ...]
    nouns: tuple[str, ...]
    said: Rows


@dataclass(frozen=True, slots=True)
class Clothes:
    """One split of the clothing photos; `labels` are rows of `names`, which are words."""

    files: tuple[bytes, ...]
    library: Library
    labels: Rows
    names: tuple[str, ...]


def coco_photos(shared: Path, models: Models) -> Coco:
    archive = shared / "data/photos/coco-80-masks.tar"
    files = {PurePosixPath(name).name: photo for name, photo in jpegs([archive])}
    photos = tuple(coco.photos(archive))
    categories = sorted({thing.category for photo in photos for thing in photo.things})
    largest = np.zeros((len(categories), len(photos)))
    for row, photo in enumerate(photos):
        for thing in photo.things:
            place = categories.index(thing.category), row
            largest[place] = max(largest[place], thing.share)
    in_order = tuple(files[photo.name] for photo in photos)
    return Coco(photos, in_order, models.library("coco", in_order), tuple(categories), largest)


def flickr_photos(shared: Path, models: Models, categories: Sequence[str]) -> Flickr:
    """The nouns are last words of `categories` and of ImageNet's classes that two captions or more of 3 to 200 photos have."""
    folder = shared / "data/flickr8k"
    captions: dict[str, list[str]] = {}
    for line in (folder / "text/Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t", 1)
        captions.setdefault(key.split("#")[0], []).append(caption.removesuffix(" ."))
    wanted = set((folder / "text/Flickr_8k.testImages.txt").read_text(encoding="utf-8").split())
    files = dict(sorted((name, photo) for name, photo in jpegs(folder.glob("images-*.tar")) if name in wanted))
    told = tuple(tuple(captions[name]) for name in files)
    classes = (shared / "models/mobilenet_v2_imagenet_labels.txt").read_text(encoding="utf-8").lower().splitlines()
    nouns, said = _nouns(told, {name.split(",")[0].split()[-1] for name in (*classes, *categories)})
    photos = tuple(files.values())
    return Flickr(photos, models.library("flickr", photos), told, nouns, said)


def clothes(shared: Path, models: Models, split: str) -> Clothes:
    """Without segments: a garment fills its photo."""
    files = dict(
        sorted((name, photo) for name, photo in jpegs((shared / "data/clothing").glob("*.tar")) if name.startswith(split))
    )
    folders = [name.split("/")[1] for name in files]
    names, labels = np.unique(folders, return_inverse=True)
    photos = tuple(files.values())
    library = models.library(f"clothing-{split}", photos, segments=False)
    return Clothes(photos, library, labels, tuple(_CLOTHES.get(str(name), str(name)) for name in names))


def jpegs(archives: Iterable[Path]) -> list[tuple[str, bytes]]:
    found = list[tuple[str, bytes]]()
    for archive in sorted(archives):
        with tarfile.open(archive) as tar:
            files = ((member.name, tar.extractfile(member)) for member in tar if member.name.endswith(".jpg"))
            found += [(name, content.read()) for name, content in files if content is not None]
    return found


def _nouns(told: Sequence[Sequence[str]], known: set[str]) -> tuple[tuple[str, ...], Rows]:
    words = [[set(re.findall(r"[a-z]+", caption.lower())) for caption in captions] for captions in told]
    said = {noun: np.asarray([sum(noun in each for each in captions) for captions in words]) for noun in sorted(known)}
    asked = {noun: counts for noun, counts in said.items() if _NAMED[0] <= (counts >= 2).sum() <= _NAMED[1]}
    return tuple(asked), np.stack(list(asked.values()))
