"""How an image and its segments become points: ids from the content hash, and the payload fields with their indexes.

An image has one image point and one segment point a segment, in every collection (one collection an embedding space), with
the same id in each. Ids depend on nothing but the content, so an upsert repeated after a crash replaces instead of doubling.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any
from uuid import UUID, uuid5

from core.ports import Match, Payload, Point, Range, Where
from core.schemas import ImageAnalysis, Location, MaskRle, Orientation, Segment

_NAMESPACE = UUID("6f2f3d9e-6f0b-5c8e-9d1c-3a1f2f6f8a10")  # fixed for ever: every point id derives from it


LAYOUT = 2
"""Which fields a payload has. Points of an earlier layout are found by what they have, and brought up to this one (watcher.ingest)."""


class Kind(StrEnum):
    IMAGE = "image"
    SEGMENT = "segment"


class IndexType(StrEnum):
    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    SUBSTRING = "substring"
    """Keywords that parts and beginnings of can be asked for."""


PAYLOAD_INDEXES: dict[str, IndexType] = {
    "kind": IndexType.KEYWORD,
    "image_id": IndexType.SUBSTRING,
    "folders": IndexType.KEYWORD,
    "names": IndexType.SUBSTRING,
    "labels": IndexType.KEYWORD,
    "label_counts": IndexType.KEYWORD,
    "taken_at": IndexType.FLOAT,
    "width": IndexType.INTEGER,
    "height": IndexType.INTEGER,
    "pixels": IndexType.INTEGER,
    "orientation": IndexType.KEYWORD,
    "bytes": IndexType.INTEGER,
    "lat": IndexType.FLOAT,
    "lon": IndexType.FLOAT,
    "n": IndexType.INTEGER,
}
"""Payload fields that a `Where` may name; each store keeps an index on them."""

INDEXES_IN_MEMORY = frozenset({"kind"})
"""By which every search filters. The others are mapped from files: searches are as fast, and what they take in memory, over a kilobyte a
point, goes to the vectors."""

UNLINKED_FIELDS = frozenset({"image_id", "names", "n", "bytes", "width", "height", "pixels", "taken_at", "lat", "lon"})
"""For whose values the graph of an index has no links of their own: each field that has them lengthens the building of the index, names,
which begin alike in their thousands, by as much as all the rest, and times of a million points by more than that. A search that is
filtered by these looks beyond the neighbours instead (`has_unlinked`)."""


def has_unlinked(where: Where) -> bool:
    """Whether the filter asks for values that the graph has no links for."""
    return any(condition.key in UNLINKED_FIELDS for condition in where.must)


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


def paths_payload(paths: Sequence[str]) -> dict[str, Any]:
    """The payload fields that change when a file is moved: `paths`, and for the filters `folders` (every ancestor) and `names`."""
    folders = sorted({str(parent) for path in paths for parent in PurePosixPath(path).parents if str(parent) != "."})
    names = sorted({f"/{folded(PurePosixPath(path).name)}/" for path in paths})
    return {"paths": sorted(paths), "folders": folders, "names": names}


def folded(name: str) -> str:
    """A file's name as the filter compares it: case and Unicode spelling do not count.

    In `names` it stands between two `/`, which no name holds, so that a part can be asked for at its beginning or end.
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def at_least(count: int, label: str) -> str:
    """What `label_counts` of a picture holds if it has at least so many segments (1, 2, ...) of that label."""
    return f"{count} {label}"


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What is told of the picture on all of its points. `labels` are those of its segments, one each."""

    width: int
    height: int
    taken_at_s: float
    location: Location | None
    labels: Sequence[str]

    def payload(self) -> dict[str, Any]:
        counts = Counter(self.labels)
        facts: dict[str, Any] = {
            "layout": LAYOUT,
            "width": self.width,
            "height": self.height,
            "pixels": self.width * self.height,
            "orientation": Orientation.of(self.width, self.height).value,
            "taken_at": self.taken_at_s,
            "label_counts": [at_least(n, label) for label in sorted(counts) for n in range(1, counts[label] + 1)],
        }
        return facts if self.location is None else {**facts, "lat": self.location.lat, "lon": self.location.lon}


def points_by_collection(
    analysis: ImageAnalysis, *, paths: Sequence[str], size_bytes: int, file_time: datetime
) -> dict[str, list[Point]]:
    """All points of an analysed image, by the collection they belong to.

    `file_time` (the file's modification time) stands in for `taken_at` where the picture does not carry one.
    """
    facts = PictureFacts(
        width=analysis.width,
        height=analysis.height,
        taken_at_s=(analysis.taken_at or file_time).timestamp(),
        location=analysis.location,
        labels=[segment.label for segment in analysis.segments],
    )
    shared: dict[str, Any] = {
        "image_id": analysis.content_hash,
        "bytes": size_bytes,
        "fingerprint": analysis.fingerprint,
        **facts.payload(),
        **paths_payload(paths),
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


def contradicts(point_id: str, payload: Payload) -> bool:
    """Whether what a payload says twice is not the same: it was not written so. A field that is not there contradicts nothing."""
    try:
        if "image_id" in payload and "kind" in payload:
            image_id = str(payload["image_id"])
            own = image_point_id(image_id) if payload["kind"] == Kind.IMAGE else segment_point_id(image_id, payload["n"])
            if own != point_id:
                return True
        if "pixels" in payload and payload["pixels"] != payload["width"] * payload["height"]:
            return True
        return "names" in payload and any(payload[key] != told for key, told in paths_payload(payload["paths"]).items())
    except (KeyError, TypeError, ValueError, AttributeError):
        return True


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


def taken_at_of(payload: Payload) -> datetime | None:
    """When the picture was taken, in UTC; None for a moment outside the calendar, as a damaged camera or file system may claim."""
    with suppress(KeyError, TypeError, ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(payload["taken_at"], UTC)
    return None


def location_of(payload: Payload) -> Location | None:
    """Where the picture was taken, if it tells."""
    return Location(lat=payload["lat"], lon=payload["lon"]) if "lat" in payload and "lon" in payload else None
