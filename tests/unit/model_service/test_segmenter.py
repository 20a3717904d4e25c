from __future__ import annotations

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from core.schemas import SegmentMode
from model_service import segmenter as module
from model_service.parts import Instance, Segmenter
from model_service.segmenter import YoloSegmenter
from model_service.weights import Checkpoint

PHOTOS = 8
LARGE = 0.08
"""Share of the picture; smaller objects are no fair test of a nano model."""


@dataclass(frozen=True)
class Annotated:
    pixels: np.ndarray
    objects: list[tuple[str, np.ndarray]]


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[Annotated]:
    """The first photos of the shared COCO sample that show large objects."""
    with tarfile.open(shared / "data" / "photos" / "coco-80-masks.tar") as archive:
        annotations = json.load(archive.extractfile("annotations/instances_train2017.json"))  # type: ignore[arg-type]
        names = {category["id"]: category["name"] for category in annotations["categories"]}
        chosen: list[Annotated] = []
        for picture in sorted(annotations["images"], key=lambda image: image["id"]):
            size = picture["height"] * picture["width"]
            large = [
                (names[o["category_id"]], _mask(o["segmentation"], picture))
                for o in annotations["annotations"]
                if o["image_id"] == picture["id"] and not o["iscrowd"] and o["area"] > LARGE * size
            ]
            if large and len(chosen) < PHOTOS:
                encoded = archive.extractfile(f"train2017/{picture['file_name']}").read()  # type: ignore[union-attr]
                chosen.append(Annotated(np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB")), large))
    return chosen


def _mask(polygons: list[list[float]], picture: dict[str, int]) -> np.ndarray:
    encoded = coco.merge(coco.frPyObjects(polygons, picture["height"], picture["width"]))
    return np.asarray(coco.decode(encoded), dtype=bool)


@pytest.fixture(scope="module")
def checkpoint(shared: Path) -> Checkpoint:
    return Checkpoint(shared / "models" / "yolov8n-seg.pt", "yolov8n-seg.pt", "0" * 16)


@pytest.fixture(scope="module")
def segmenter(checkpoint: Checkpoint) -> YoloSegmenter:
    return module.load(checkpoint, device="cpu", max_segments=20, min_score=0.25)


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.logical_and(one, other).sum() / max(1, np.logical_or(one, other).sum()))


def best_match(instances: list[Instance], name: str, truth: np.ndarray) -> float:
    size = (truth.shape[1], truth.shape[0])
    masks = [np.asarray(Image.fromarray(i.mask).resize(size, Image.Resampling.NEAREST)) for i in instances if i.label == name]
    return max((iou(mask, truth) for mask in masks), default=0.0)


def test_large_objects_of_real_photos_are_found_under_their_names(segmenter: Segmenter, photos: list[Annotated]) -> None:
    found = segmenter.segment([photo.pixels for photo in photos], SegmentMode.STANDARD)

    matches = [
        best_match(instances, name, truth)
        for photo, instances in zip(photos, found, strict=True)
        for name, truth in photo.objects
    ]
    print(f"mean best IoU of {len(matches)} objects: {np.mean(matches):.3f}")
    assert np.mean(matches) > 0.5


@pytest.mark.parametrize("mode", [SegmentMode.QUICK, SegmentMode.STANDARD, SegmentMode.FULL])
def test_boxes_lie_in_the_picture_and_around_their_masks(
    segmenter: Segmenter, photos: list[Annotated], mode: SegmentMode
) -> None:
    large = np.asarray(Image.fromarray(photos[0].pixels).resize((1800, 1300)))
    pictures = [large, photos[1].pixels]

    found = segmenter.segment(pictures, mode)

    assert all(found)
    for picture, instances in zip(pictures, found, strict=True):
        height, width = picture.shape[:2]
        for instance in instances:
            x, y, across, down = instance.bbox
            assert 0 <= x < x + across <= width + 1e-3
            assert 0 <= y < y + down <= height + 1e-3
            rows, columns = instance.mask.shape
            assert max(rows, columns) <= 640
            assert rows / columns == pytest.approx(height / width, rel=0.01)
            assert instance.area == pytest.approx(instance.mask.mean())
            ys, xs = np.nonzero(instance.mask)
            slack = 0.03 * max(width, height)
            assert xs.min() / columns * width >= x - slack
            assert (xs.max() + 1) / columns * width <= x + across + slack
            assert ys.min() / rows * height >= y - slack
            assert (ys.max() + 1) / rows * height <= y + down + slack


def test_a_pictures_segments_do_not_depend_on_its_batch(segmenter: Segmenter, photos: list[Annotated]) -> None:
    pictures = [photo.pixels for photo in photos[:3]] + [np.zeros((40, 700, 3), dtype=np.uint8)]

    together = segmenter.segment(pictures, SegmentMode.QUICK)
    alone = [segmenter.segment([picture], SegmentMode.QUICK)[0] for picture in pictures]

    assert sum(map(len, alone)) > 0
    for one, other in zip(together, alone, strict=True):
        assert [(i.label, i.score, i.bbox) for i in one] == [(i.label, i.score, i.bbox) for i in other]
        assert all(np.array_equal(i.mask, j.mask) for i, j in zip(one, other, strict=True))


def test_the_best_segments_are_kept_when_there_are_too_many(
    segmenter: Segmenter, checkpoint: Checkpoint, photos: list[Annotated]
) -> None:
    few = module.load(checkpoint, device="cpu", max_segments=2, min_score=0.25)
    pictures = [photo.pixels for photo in photos]

    all_of_them = segmenter.segment(pictures, SegmentMode.STANDARD)
    best = few.segment(pictures, SegmentMode.STANDARD)

    assert max(map(len, all_of_them)) > 2
    for kept, whole in zip(best, all_of_them, strict=True):
        assert [i.score for i in kept] == [i.score for i in whole[:2]]
        assert [i.score for i in whole] == sorted((i.score for i in whole), reverse=True)


def test_colours_reach_the_model_in_their_order(segmenter: Segmenter, photos: list[Annotated]) -> None:
    right = segmenter.segment([photo.pixels for photo in photos], SegmentMode.STANDARD)
    swapped = segmenter.segment([photo.pixels[..., ::-1] for photo in photos], SegmentMode.STANDARD)

    def certainty(found: list[list[Instance]]) -> float:
        return sum(instances[0].score for instances in found if instances)

    assert certainty(right) > certainty(swapped)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5000, 1), (1, 5000), (31, 900)])
def test_pictures_of_hairline_shapes_end_without_segments_or_with_sound_ones(
    segmenter: Segmenter, shape: tuple[int, int]
) -> None:
    (instances,) = segmenter.segment([np.full((*shape, 3), 90, dtype=np.uint8)], SegmentMode.STANDARD)

    assert all(instance.mask.any() and instance.bbox[2] > 0 for instance in instances)


def test_segmenting_leaves_the_process_as_it_was(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    threads, open_image = torch.get_num_threads(), Image.open

    loaded = module.load(checkpoint, device="cpu", max_segments=5, min_score=0.25)
    loaded.segment([np.full((200, 300, 3), 90, dtype=np.uint8)], SegmentMode.QUICK)

    assert list(tmp_path.iterdir()) == []
    assert torch.get_num_threads() == threads
    assert Image.open is open_image
