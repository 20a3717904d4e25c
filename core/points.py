"""How an image and its segments become points: ids from the content hash, and the payload fields with their indexes.

An image has one image point and one segment point a segment, in every collection (one collection an embedding space), with
the same id in each. Ids depend on nothing but the content, so an upsert repeated after a crash replaces instead of doubling.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID, uuid5

from core.ports import Match, Payload, Point, Range, Where
from core.schemas import ImageAnalysis, MaskRle, Segment

_NAMESPACE = UUID("6f2f3d9e-6f0b-5c8e-9d1c-3a1f2f6f8a10")  # fixed for ever: every point id derives from it


class Kind(StrEnum):
    IMAGE = "image"
    SEGMENT = "segment"


class IndexType(StrEnum):
    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"


PAYLOAD_INDEXES: dict[str, IndexType] = {
    "kind": IndexType.KEYWORD,
    "image_id": IndexType.KEYWORD,
    "folders": IndexType.KEYWORD,
    "labels": IndexType.KEYWORD,
    "taken_at": IndexType.FLOAT,
    "width": IndexType.INTEGER,
    "height": IndexType.INTEGER,
    "bytes": IndexType.INTEGER,
    "n": IndexType.INTEGER,
}
"""Payload fields that a `Where` may name; each store keeps an index on them."""


def image_point_id(image_id: str) -> str:
    return str(uuid5(_NAMESPACE, image_id))


def segment_point_id(image_id: str, n: int) -> str:
    return str(uuid5(_NAMESPACE, f"{image_id}/{n}"))


def of_image(image_id: str) -> Where:
    """Everything that belongs to one image."""
    return Where(must=(Match("image_id", (image_id,)),))


def segments_of(image_id: str) -> Where:
    return Where(must=(Match("image_id", (image_id,)), Match("kind", (Kind.SEGMENT.value,))))


def stale_segments_of(image_id: str, first_stale: int) -> Where:
    """Segments left over from an earlier run that found more of them."""
    return Where(must=(*segments_of(image_id).must, Range("n", gte=first_stale)))


def location_payload(paths: Sequence[str]) -> dict[str, Any]:
    """The payload fields that change when a file is moved: `paths`, and `folders` (every ancestor, for the folder filter)."""
    folders = sorted({str(parent) for path in paths for parent in PurePosixPath(path).parents if str(parent) != "."})
    return {"paths": sorted(paths), "folders": folders}


def points_by_collection(
    analysis: ImageAnalysis, *, paths: Sequence[str], size_bytes: int, file_time: datetime
) -> dict[str, list[Point]]:
    """All points of an analysed image, by the collection they belong to.

    `file_time` (the file's modification time) stands in for `taken_at` where the picture does not carry one.
    """
    shared: dict[str, Any] = {
        "image_id": analysis.content_hash,
        "width": analysis.width,
        "height": analysis.height,
        "bytes": size_bytes,
        "taken_at": (analysis.taken_at or file_time).timestamp(),
        "fingerprint": analysis.fingerprint,
        **location_payload(paths),
    }
    labels = sorted({segment.label for segment in analysis.segments})
    image_payload = {**shared, "kind": Kind.IMAGE.value, "labels": labels, "segments": len(analysis.segments)}
    points: dict[str, list[Point]] = {}
    for embedding in analysis.embeddings:
        point = Point(image_point_id(analysis.content_hash), embedding.vector, image_payload)
        points.setdefault(embedding.collection, []).append(point)
    for segment in analysis.segments:
        payload = {**shared, **_segment_payload(segment)}
        for embedding in segment.embeddings:
            point = Point(segment_point_id(analysis.content_hash, segment.n), embedding.vector, payload)
            points.setdefault(embedding.collection, []).append(point)
    return points


def _segment_payload(segment: Segment) -> dict[str, Any]:
    return {
        "kind": Kind.SEGMENT.value,
        "n": segment.n,
        "labels": [segment.label],
        "score": segment.score,
        "bbox": list(segment.bbox),
        "area": segment.area,
        "mask": {"size": list(segment.mask.size), "counts": segment.mask.counts},
    }


def segment_of(payload: Payload) -> Segment:
    """The segment that a segment point's payload describes."""
    mask = payload["mask"]
    x, y, width, height = payload["bbox"]
    return Segment(
        n=payload["n"],
        label=payload["labels"][0],
        score=payload["score"],
        bbox=(x, y, width, height),
        area=payload["area"],
        mask=MaskRle(size=(mask["size"][0], mask["size"][1]), counts=mask["counts"]),
    )
