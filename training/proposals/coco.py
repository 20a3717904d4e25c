"""COCO photos with captions and the masks of what is on them, out of one tar.

Pictures lie anywhere in it, `instances_*.json` and `captions_*.json` in `annotations/`.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from core.decode import Pixels
from core.masks import Mask
from training.pictures import UnusablePictures


@dataclass(frozen=True, slots=True)
class Thing:
    """One object that people outlined; `share` is the part of the picture that it covers, 0 to 1."""

    category: str
    mask: Mask

    @property
    def share(self) -> float:
        return float(self.mask.mean())


@dataclass(frozen=True, slots=True)
class Photo:
    name: str
    pixels: Pixels
    things: tuple[Thing, ...]
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a tar with something on them, in the order of their names; read when asked for."""

    archive: Path
    instances: dict[str, tuple[dict[str, Any], ...]]
    """COCO's annotations of each file, crowds left out; `category` is a word."""
    captions: dict[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.instances)

    def __iter__(self) -> Iterator[Photo]:
        with tarfile.open(self.archive) as tar:
            members = {PurePosixPath(member.name).name: member for member in tar.getmembers() if member.isfile()}
            for name, found in self.instances.items():
                stored = tar.extractfile(members[name])
                if stored is None:
                    raise UnusablePictures(f"{name} is no file of {self.archive.name}")
                with Image.open(io.BytesIO(stored.read())) as image:
                    pixels = np.asarray(image.convert("RGB"))
                yield Photo(name, pixels, tuple(_thing(each, pixels) for each in found), self.captions.get(name, ()))


def photos(archive: Path) -> Photos:
    """Raises UnusablePictures when the tar has no annotations, or lacks a picture that they name."""
    try:
        with tarfile.open(archive) as tar:
            names = {PurePosixPath(member.name).name for member in tar.getmembers()}
            found, said = _things(_annotations(tar, "instances")), _captions(_annotations(tar, "captions"))
    except (OSError, tarfile.TarError, ValueError, KeyError, StopIteration) as error:
        raise UnusablePictures(
            f"{archive} is no tar of COCO photos with instances and captions ({type(error).__name__}: {error})"
        ) from error
    absent = sorted(found.keys() - names)
    if absent:
        raise UnusablePictures(f"{archive} lacks {len(absent)} of the pictures that it has instances of, {absent[0]} among them")
    return Photos(archive, found, said)


def _annotations(tar: tarfile.TarFile, kind: str) -> dict[str, list[dict[str, Any]]]:
    named = next(member for member in tar.getmembers() if PurePosixPath(member.name).match(f"annotations/{kind}_*.json"))
    stored = tar.extractfile(named)
    content: dict[str, list[dict[str, Any]]] = json.loads(stored.read() if stored else b"")
    return content


def _captions(content: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[str, ...]]:
    files = {image["id"]: image["file_name"] for image in content["images"]}
    said: dict[str, list[str]] = {}
    for each in content["annotations"]:
        said.setdefault(files[each["image_id"]], []).append(each["caption"].strip())
    return {name: tuple(captions) for name, captions in said.items()}


def _things(content: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[dict[str, Any], ...]]:
    words = {category["id"]: category["name"] for category in content["categories"]}
    files = {image["id"]: image["file_name"] for image in content["images"]}
    found: dict[str, list[dict[str, Any]]] = {}
    for each in content["annotations"]:
        if not each["iscrowd"]:
            found.setdefault(files[each["image_id"]], []).append({**each, "category": words[each["category_id"]]})
    return {name: tuple(found[name]) for name in sorted(found)}


def _thing(annotation: dict[str, Any], pixels: Pixels) -> Thing:
    height, width = pixels.shape[:2]
    outlines = coco.frPyObjects(annotation["segmentation"], height, width)
    mask = coco.decode(coco.merge(outlines if isinstance(outlines, list) else [outlines]))
    return Thing(annotation["category"], np.asarray(mask, dtype=np.bool_))
