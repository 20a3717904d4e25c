"""Payloads of real photos with the masks that people drew on them, as the product would write them."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pycocotools import mask as coco

from benchmarks.photos import SHARED
from core.masks import encode
from core.points import points_by_collection
from core.ports import Payload
from core.schemas import AnalysedSegment, Embedding, ImageAnalysis

PHOTOS = SHARED / "data" / "photos" / "coco-80-masks.tar"
_COLLECTION = "clip-vit-base-patch32-3d74acf9-1f0c2b9a"


def payloads() -> list[list[Payload]]:
    """Of 80 photos from COCO at up to 640 pixels, each photo's own first. Raises FileNotFoundError without them (IMAGESEARCH_SHARED)."""
    with tarfile.open(PHOTOS) as tar:
        told = json.load(tar.extractfile("annotations/instances_train2017.json"))  # type: ignore[arg-type]
    names = {one["id"]: one["name"] for one in told["categories"]}
    by_image = defaultdict(list)
    for one in told["annotations"]:
        by_image[one["image_id"]].append(one)
    return [_payloads(image, by_image[image["id"]], names) for image in told["images"]]


def _payloads(image: dict[str, Any], found: list[dict[str, Any]], names: dict[int, str]) -> list[Payload]:
    width, height = image["width"], image["height"]
    embedding = Embedding(collection=_COLLECTION, vector=np.ones(1, dtype=np.float32))
    segments = [
        AnalysedSegment(
            n=n,
            label=names[one["category_id"]],
            score=0.9 - n / 1000,
            bbox=tuple(round(side) for side in one["bbox"]),
            area=min(1.0, one["area"] / (width * height)),
            mask=encode(_mask(one["segmentation"], width, height)),
            embeddings=(embedding,),
        )
        for n, one in enumerate(found)
    ]
    analysis = ImageAnalysis(
        content_hash=hashlib.sha256(image["file_name"].encode()).hexdigest(),
        width=width,
        height=height,
        format="JPEG",
        fingerprint="0123456789abcdef",
        embeddings=(embedding,),
        segments=segments,
    )
    points = points_by_collection(
        analysis, paths=[image["file_name"]], size_bytes=100_000, file_time=datetime(2017, 9, 1, tzinfo=UTC)
    )
    return [point.payload for point in points[_COLLECTION]]


def _mask(drawn: Any, width: int, height: int) -> Any:
    """Outlines, or runs where it is a crowd."""
    parts = coco.frPyObjects(drawn, height, width)
    return coco.decode(coco.merge(parts) if isinstance(parts, list) else parts).astype(bool)
