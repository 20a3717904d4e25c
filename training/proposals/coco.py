"""COCO photos with the masks of what is on them, out of one tar: pictures anywhere in it, `annotations/instances_*.json` beside them."""

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


@dataclass(frozen=True, slots=True)
class Photos:
    """The photos of a tar with something on them, in the order of their names; read when asked for."""

    archive: Path
    instances: dict[str, tuple[dict[str, Any], ...]]
    """COCO's annotations of each file, crowds left out; `category` is a word."""

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
                yield Photo(name, pixels, tuple(_thing(each, pixels) for each in found))


def photos(archive: Path) -> Photos:
    """Raises UnusablePictures when the tar has no instances, or lacks a picture that they name."""
    try:
        with tarfile.open(archive) as tar:
            names = {PurePosixPath(member.name).name for member in tar.getmembers()}
            content = json.loads(_instances(tar))
        found = _by_file(content)
    except (OSError, tarfile.TarError, ValueError, KeyError, StopIteration) as error:
        raise UnusablePictures(f"{archive} is no tar of COCO photos with instances ({type(error).__name__}: {error})") from error
    absent = sorted(found.keys() - names)
    if absent:
        raise UnusablePictures(f"{archive} lacks {len(absent)} of the pictures that it has instances of, {absent[0]} among them")
    return Photos(archive, found)


def _instances(tar: tarfile.TarFile) -> bytes:
    named = next(member for member in tar.getmembers() if PurePosixPath(member.name).match("annotations/instances_*.json"))
    stored = tar.extractfile(named)
    return stored.read() if stored else b""


def _by_file(content: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[dict[str, Any], ...]]:
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
