"""A ranked point as the API shows it."""

from __future__ import annotations

import math
from pathlib import PurePosixPath

from core.points import Kind, location_of, segment_of, taken_at_of
from core.ports import Payload
from core.schemas import Orientation, Segment
from searchsvc import urls
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import shown_path
from searchsvc.ranking import NOISE, Ranked
from searchsvc.search_schema import MatchView, SegmentView


def match_view(ranked: Ranked, wanted: SearchFilter | None) -> MatchView | None:
    """Without its token. None for an image whose last path went while it was being found."""
    payload = ranked.hit.payload
    path = shown_path(list(payload["paths"]), wanted)
    if path is None:
        return None
    image_id = payload["image_id"]
    segment = matched_segment(payload)
    return MatchView(
        image_name=PurePosixPath(path).name,
        score=_as_cosine(ranked.score),
        image_id=image_id,
        path=path,
        image_url=urls.image_file(image_id),
        thumbnail_url=urls.thumbnail(image_id),
        width=payload["width"],
        height=payload["height"],
        orientation=Orientation.of(payload["width"], payload["height"]),
        taken_at=taken_at_of(payload),
        location=location_of(payload),
        segment=segment_view(image_id, segment) if segment else None,
        jwt="",
    )


def _as_cosine(score: float) -> float:
    """Vectors of single precision make the cosine of a picture and itself a little more than 1."""
    return math.copysign(1.0, score) if 1.0 < abs(score) <= 1.0 + NOISE else score


def matched_segment(payload: Payload) -> Segment | None:
    """The region that a point is, if it is one."""
    return segment_of(payload) if payload["kind"] == Kind.SEGMENT.value else None


def segment_view(image_id: str, segment: Segment) -> SegmentView:
    """A segment as the API shows it: with the address of its mask instead of the mask."""
    return SegmentView(
        n=segment.n,
        label=segment.label,
        score=segment.score,
        bbox=segment.bbox,
        area=segment.area,
        mask_url=urls.mask(image_id, segment.n),
    )
