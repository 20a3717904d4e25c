"""Ids and payloads that an index lives by for years."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import PurePosixPath
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.points import (
    PAYLOAD_INDEXES,
    Kind,
    folded,
    image_point_id,
    location_of,
    of_image,
    paths_payload,
    points_by_collection,
    segment_of,
    segment_point_id,
    segments_of,
    stale_segments_of,
    taken_at_of,
)
from core.ports import Match, Range
from core.schemas import AnalysedSegment, Embedding, ImageAnalysis, Location, MaskRle, Segment

HASHES = st.binary(min_size=32, max_size=32).map(bytes.hex)
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in {".", ".."}
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
FLOATS = st.floats(0, 10_000, allow_nan=False)
SEGMENTS = st.builds(
    Segment,
    n=st.integers(0, 500),
    label=st.text(max_size=20),
    score=st.floats(0, 1),
    bbox=st.tuples(FLOATS, FLOATS, FLOATS, FLOATS),
    area=st.floats(0, 1),
    mask=st.builds(MaskRle, size=st.tuples(st.integers(1, 640), st.integers(1, 640)), counts=st.text(max_size=40)),
)
FILE_TIME = datetime(2020, 5, 1, tzinfo=UTC)


def analysis_of(image_id: str, segments: list[Segment], *, taken_at: datetime | None = None) -> ImageAnalysis:
    """In two spaces; the vectors tell which is whose."""

    def embeddings(number: float) -> tuple[Embedding, ...]:
        return tuple(Embedding(collection=name, vector=np.full(3, number, np.float32)) for name in ("clip", "resnet"))

    return ImageAnalysis(
        content_hash=image_id,
        width=640,
        height=480,
        format="JPEG",
        taken_at=taken_at,
        fingerprint="abc",
        embeddings=embeddings(-1),
        segments=tuple(AnalysedSegment(**dict(segment), embeddings=embeddings(segment.n)) for segment in segments),
    )


def test_ids_are_the_ones_that_indexes_were_built_with() -> None:
    """A change here would double every image of every existing index."""
    assert image_point_id("0" * 64) == "59ba23b5-8212-5d86-ac9e-88ce331671d4"
    assert segment_point_id("0" * 64, 3) == "572fc5f9-c16d-502f-b6d3-ed4c6e84ef9d"


@given(image_ids=st.sets(HASHES, min_size=1, max_size=10), ns=st.sets(st.integers(0, 10_000), max_size=20))
def test_ids_are_distinct_uuids_that_depend_on_content_alone(image_ids: set[str], ns: set[int]) -> None:
    ids = [image_point_id(image_id) for image_id in image_ids] + [
        segment_point_id(image_id, n) for image_id in image_ids for n in ns
    ]
    assert len(set(ids)) == len(ids)
    assert all(str(UUID(found)) == found for found in ids)
    assert [image_point_id(image_id) for image_id in image_ids] == ids[: len(image_ids)]


@given(st.lists(PATHS, max_size=5))
def test_folders_are_all_ancestors_of_all_paths(paths: list[str]) -> None:
    payload = paths_payload(paths)
    assert payload["paths"] == sorted(paths)
    assert payload["folders"] == sorted(set(payload["folders"]))
    assert all(any(path.startswith(f"{folder}/") for path in paths) for folder in payload["folders"])
    assert all(str(PurePosixPath(path).parent) in {*payload["folders"], "."} for path in paths)


def test_a_file_at_the_top_lies_in_no_folder() -> None:
    assert paths_payload(["b.jpg", "2024/May/a.jpg"]) == {
        "paths": ["2024/May/a.jpg", "b.jpg"],
        "folders": ["2024", "2024/May"],
        "names": ["/a.jpg/", "/b.jpg/"],
    }


@given(segment=SEGMENTS, image_id=HASHES)
def test_a_segment_comes_back_whole_from_its_stored_payload(segment: Segment, image_id: str) -> None:
    points = points_by_collection(analysis_of(image_id, [segment]), paths=["a.jpg"], size_bytes=9, file_time=FILE_TIME)
    stored = json.loads(json.dumps(points["clip"][1].payload))
    assert segment_of(stored) == segment


def test_an_image_has_the_same_points_in_every_space_each_with_its_vector() -> None:
    image_id = "ab" * 32
    segments = [
        Segment(n=n, label=f"label {n}", score=0.5, bbox=(0, 0, 1, 1), area=0.1, mask=MaskRle(size=(1, 1), counts="0"))
        for n in (0, 1)
    ]
    points = points_by_collection(analysis_of(image_id, segments), paths=["b/a.jpg"], size_bytes=9, file_time=FILE_TIME)
    assert set(points) == {"clip", "resnet"}
    for stored in points.values():
        assert [point.id for point in stored] == [image_point_id(image_id), *(segment_point_id(image_id, n) for n in (0, 1))]
        assert [float(point.vector[0]) for point in stored] == [-1, 0, 1]
        assert [point.payload["kind"] for point in stored] == [Kind.IMAGE, Kind.SEGMENT, Kind.SEGMENT]
        assert [point.payload["labels"] for point in stored] == [["label 0", "label 1"], ["label 0"], ["label 1"]]
        assert all(point.payload["image_id"] == image_id and point.payload["folders"] == ["b"] for point in stored)
        assert stored[0].payload["segments"] == 2


def test_the_picture_knows_better_than_the_file_when_it_was_taken() -> None:
    taken = datetime(1999, 12, 31, tzinfo=UTC)
    for taken_at, expected in ((taken, taken), (None, FILE_TIME)):
        analysis = analysis_of("ab" * 32, [], taken_at=taken_at)
        [point] = points_by_collection(analysis, paths=["a.jpg"], size_bytes=9, file_time=FILE_TIME)["clip"]
        assert point.payload["taken_at"] == expected.timestamp()


def test_filters_of_an_image_narrow_from_all_its_points_to_the_leftover_segments() -> None:
    image, segments, stale = of_image("ab"), segments_of("ab"), stale_segments_of("ab", 4)
    assert image.must == (Match("image_id", ("ab",)),)
    assert set(segments.must) == {*image.must, Match("kind", ("segment",))}
    assert set(stale.must) == {*segments.must, Range("n", gte=4)}


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("IMG_2034.JPG", "img_20"),
        ("Gru\u0308n.png", "grün"),  # as macOS spells it
        ("STRASSE.jpg", "straße"),
        ("a.jpg", "/a.jpg/"),
    ],
)
def test_names_are_compared_without_case_and_unicode_spelling(name: str, part: str) -> None:
    [stored] = paths_payload([f"Folder/{name}"])["names"]
    assert folded(part) in stored


def test_all_points_of_an_image_tell_what_can_be_filtered_by() -> None:
    segments = [
        Segment(n=n, label=label, score=0.5, bbox=(0, 0, 1, 1), area=0.1, mask=MaskRle(size=(1, 1), counts="0"))
        for n, label in enumerate(["person", "dog", "person"])
    ]
    analysis = analysis_of("ab" * 32, segments).model_copy(update={"location": Location(lat=-33.5, lon=0.0)})
    for point in points_by_collection(analysis, paths=["a.jpg"], size_bytes=9, file_time=FILE_TIME)["clip"]:
        payload = point.payload
        assert payload["label_counts"] == ["1 dog", "1 person", "2 person"]
        assert (payload["pixels"], payload["orientation"], payload["bytes"]) == (640 * 480, "landscape", 9)
        assert location_of(payload) == Location(lat=-33.5, lon=0.0)
        assert taken_at_of(payload) == FILE_TIME
        assert PAYLOAD_INDEXES.keys() <= {*payload, "n"}


def test_what_a_picture_does_not_tell_is_not_written() -> None:
    [point] = points_by_collection(analysis_of("ab" * 32, []), paths=["a.jpg"], size_bytes=9, file_time=FILE_TIME)["clip"]
    assert not {"lat", "lon"} & point.payload.keys()
    assert location_of(point.payload) is None


@pytest.mark.parametrize(
    "payload", [{}, {"taken_at": None}, {"taken_at": 1e300}, {"taken_at": -1e17}, {"taken_at": float("nan")}]
)
def test_a_moment_outside_the_calendar_is_none(payload: dict[str, object]) -> None:
    assert taken_at_of(payload) is None
