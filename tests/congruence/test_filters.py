"""Every filter of the API means on both homes of the vectors what it means in plain Python."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize
from uuid import UUID

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from qdrant_client import AsyncQdrantClient

from core.points import points_by_collection
from core.ports import FacetCount, VectorStore
from core.schemas import AnalysedSegment, Embedding, ImageAnalysis, Location, MaskRle, Space
from core.vectors.edge import EdgeStore
from core.vectors.server import ServerStore
from searchsvc.filter_schema import SearchFilter
from searchsvc.filters import where_of
from searchsvc.search_schema import Scope
from tests.qdrant_grpc import qdrant_grpc
from tests.qdrant_rest import qdrant_rest
from tests.ram import ram_folder

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")

SPACE = Space(collection="clip", model_name="CLIP", dim=2, text=True)
NAME = SPACE.collection
VECTOR = np.ones(2, np.float32)
MASK = MaskRle(size=(1, 1), counts="0")
OFF = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Picture:
    """What is known of a picture before it becomes points."""

    number: int
    paths: tuple[str, ...]
    size: tuple[int, int]
    bytes: int
    taken_at: datetime
    location: Location | None
    labels: tuple[str, ...]

    @property
    def image_id(self) -> str:
        return f"{self.number:064x}"

    def points(self) -> Any:
        embeddings = (Embedding(collection=NAME, vector=VECTOR),)
        segments = tuple(
            AnalysedSegment(n=n, label=label, score=0.5, bbox=(0, 0, 1, 1), area=0.5, mask=MASK, embeddings=embeddings)
            for n, label in enumerate(self.labels)
        )
        analysis = ImageAnalysis(
            content_hash=self.image_id,
            width=self.size[0],
            height=self.size[1],
            format="JPEG",
            taken_at=self.taken_at,
            location=self.location,
            fingerprint="f",
            embeddings=embeddings,
            segments=segments,
        )
        return points_by_collection(analysis, paths=self.paths, size_bytes=self.bytes, file_time=self.taken_at)[NAME]


def name_fits(pattern: str, path: str) -> bool:
    """For patterns whose pieces cannot overlap and stand in order, what a shell makes of them."""
    pattern, name = (normalize("NFC", text).casefold() for text in (pattern, PurePosixPath(path).name))
    return fnmatch.fnmatchcase(name, pattern) if "*" in pattern else pattern in name


def is_wanted(picture: Picture, wanted: SearchFilter) -> bool:
    """The meaning of a filter, but for `label`, which depends on the scope."""
    width, height = picture.size
    side = "square" if width == height else "landscape" if width > height else "portrait"
    holds = [not wanted.folder or any(path.startswith(f"{wanted.folder}/") for path in picture.paths)]
    holds += [not wanted.name or any(name_fits(wanted.name, path) for path in picture.paths)]
    holds += [wanted.orientation is None or side in wanted.orientation]
    holds += [label in picture.labels for label in wanted.label_all or ()]
    for label, bound in (wanted.label_count or {}).items():
        count = picture.labels.count(label)
        holds += [bound.gte is None or count >= bound.gte, bound.lte is None or count <= bound.lte]
    if wanted.taken:
        holds += [wanted.taken.earliest_s is None or picture.taken_at.timestamp() >= wanted.taken.earliest_s]
        holds += [wanted.taken.latest_s is None or picture.taken_at.timestamp() <= wanted.taken.latest_s]
    if size := wanted.size:
        megapixels = width * height / 1_000_000
        for value, low, high in (
            (width, size.min_width, size.max_width),
            (height, size.min_height, size.max_height),
            (megapixels, size.min_megapixels, size.max_megapixels),
            (picture.bytes, size.min_bytes, size.max_bytes),
        ):
            holds += [low is None or value >= low, high is None or value <= high]
    if box := wanted.gps_box:
        place = picture.location
        holds += [place is not None and box.south <= place.lat <= box.north and lies_between(place.lon, box.west, box.east)]
    return all(holds)


def lies_between(lon: float, west: float, east: float) -> bool:
    """Going east from `west`, `lon` comes before `east`."""
    return west <= lon <= east if west <= east else lon >= west or lon <= east


def expected(pictures: list[Picture], scope: Scope, wanted: SearchFilter) -> set[UUID]:
    found = set()
    for picture in pictures:
        for point in picture.points() if is_wanted(picture, wanted) else ():
            is_image = point.payload["kind"] == "image"
            labels = picture.labels if is_image else (picture.labels[point.payload["n"]],)
            in_scope = scope == "both" or is_image == (scope == "images")
            if in_scope and (wanted.label is None or set(labels) & set(wanted.label)):
                found.add(UUID(point.id))
    return found


FILES = ("IMG_01.jpg", "img_12.png", "Grün.jpg", "Gru\u0308n 2.JPG", "beach.jpg")
FOLDERS = ("", "a/", "a/b/", "ab/")
LABELS = ("dog", "person", "2 dog")
DEGREES = st.sampled_from([-90.0, -33.5, 0.0, 1e-7, 33.5, 90.0])
MERIDIANS = st.sampled_from([-180.0, -179.5, -1.0, 0.0, 12.25, 179.5, 180.0])
TIMES = st.sampled_from([datetime(2024, 5, day, hour, tzinfo=UTC) for day in (1, 2) for hour in (0, 12, 23)])
PICTURES = st.lists(
    st.builds(
        Picture,
        number=st.integers(0, 10_000),
        paths=st.lists(st.builds(str.__add__, st.sampled_from(FOLDERS), st.sampled_from(FILES)), min_size=1, max_size=2).map(
            tuple
        ),
        size=st.sampled_from([(640, 480), (480, 640), (500, 500), (4000, 3000), (1, 1)]),
        bytes=st.sampled_from([1, 1000, 2**33]),
        taken_at=TIMES,
        location=st.none() | st.builds(Location, lat=DEGREES, lon=MERIDIANS),
        labels=st.lists(st.sampled_from(LABELS), max_size=4).map(tuple),
    ),
    max_size=8,
    unique_by=lambda picture: picture.number,
)


@st.composite
def ordered(draw: st.DrawFn, low: str, high: str, values: Any) -> dict[str, Any]:
    """Either bound, or both in order."""
    bounds = sorted(draw(st.lists(values, min_size=1, max_size=2)))
    return {low: bounds[0], high: bounds[1]} if len(bounds) == 2 else {draw(st.sampled_from([low, high])): bounds[0]}


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, float]:
    south, north = sorted([draw(DEGREES), draw(DEGREES)])
    return {"south": south, "north": north, "west": draw(MERIDIANS), "east": draw(MERIDIANS)}


SIZES = st.one_of(
    ordered("min_width", "max_width", st.sampled_from([1, 480, 500, 4000])),
    ordered("min_height", "max_height", st.sampled_from([1, 480, 500, 4000])),
    ordered("min_megapixels", "max_megapixels", st.sampled_from([0, 0.25, 0.3072, 12, 12.5])),
    ordered("min_bytes", "max_bytes", st.sampled_from([0, 1000, 1001, 2**33])),
)
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "folder": st.sampled_from(["a", "a/b", "ab", "b", "img"]),
        "name": st.sampled_from(
            ["img", "IMG_*.jpg", "*.jpg", "grün", "GRÜN*", "g*2.jpg", "*ea*", "*_*.p*", "nothing", "_01.jpg"]
        ),
        "label": st.lists(st.sampled_from(LABELS), min_size=1, max_size=2),
        "label_all": st.lists(st.sampled_from(LABELS), min_size=1, max_size=2),
        "label_count": st.dictionaries(st.sampled_from(LABELS), ordered("gte", "lte", st.integers(0, 3)), min_size=1, max_size=2),
        "date": ordered("from", "to", st.sampled_from(["2024-05-01", "2024-05-01T12:00:00Z", "2024-05-02"])),
        "size": SIZES,
        "orientation": st.lists(st.sampled_from(["landscape", "portrait", "square"]), min_size=1, max_size=2),
        "gps_box": boxes(),
    },
)


@pytest.fixture
def work_folder() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


@pytest.fixture
async def homes(work_folder: Path) -> AsyncIterator[dict[str, VectorStore]]:
    async with AsyncExitStack() as stack:
        rest, grpc = await stack.enter_async_context(qdrant_rest()), await stack.enter_async_context(qdrant_grpc())
        opened: dict[str, Any] = {
            "edge": EdgeStore(work_folder / "vectors"),
            "memory": ServerStore("http://unused", client=AsyncQdrantClient(":memory:")),
            "rest": ServerStore(rest, prefer_grpc=False),
            "grpc": ServerStore(grpc),
        }
        for store in opened.values():
            await stack.enter_async_context(store)
            await store.ensure(SPACE)
        yield opened


async def fill(store: VectorStore, pictures: list[Picture]) -> None:
    for scope in ("images", "segments"):
        await store.delete(NAME, where_of(scope, None))
    await store.upsert(NAME, [point for picture in pictures for point in picture.points()])


async def found(store: VectorStore, scope: Scope, wanted: SearchFilter) -> set[UUID]:
    where = where_of(scope, wanted)
    ids = {UUID(record.id) async for record in store.scroll(NAME, where=where, with_payload=False)}
    hits = await store.query(NAME, VECTOR, where=where, limit=100)
    assert {UUID(hit.id) for hit in hits} == ids
    return ids


PARIS = Location(lat=48.86, lon=2.35)
FIJI = Location(lat=-17.7, lon=179.99)
SAMOA = Location(lat=-13.8, lon=-171.8)
HARARE = Location(lat=-17.8, lon=31.05)


@given(
    pictures=PICTURES, filters=st.lists(FILTERS, min_size=1, max_size=4), scope=st.sampled_from(["images", "segments", "both"])
)
@example(
    pictures=[
        Picture(n, ("a/IMG_01.jpg",), (640, 480), 9, datetime(2024, 5, 1, tzinfo=UTC), place, ("person",) * n)
        for n, place in enumerate([PARIS, FIJI, SAMOA, HARARE, None])
    ],
    filters=[
        {"gps_box": {"south": -30, "west": 170, "north": 0, "east": -160}, "label_count": {"person": {"gte": 2}}},
        {"gps_box": {"south": -90, "west": -180, "north": 90, "east": 180}, "label_count": {"dog": {"lte": 0}}},
        {"gps_box": {"south": 48.86, "west": 2.35, "north": 48.86, "east": 2.35}, "name": "img", "orientation": "landscape"},
        {"gps_box": {"south": -90, "west": 2.350000000000001, "north": 90, "east": 2.35}},
    ],
    scope="images",
)
@OFF
async def test_a_filter_lets_through_on_every_home_what_it_means(
    homes: dict[str, VectorStore], pictures: list[Picture], filters: list[dict[str, Any]], scope: Scope
) -> None:
    for home in ("edge", "memory"):
        await fill(homes[home], pictures)
        for given_filter in filters:
            wanted = SearchFilter.model_validate(given_filter)
            assert await found(homes[home], scope, wanted) == expected(pictures, scope, wanted), (home, given_filter)


async def test_the_protocols_carry_every_kind_of_filter(homes: dict[str, VectorStore]) -> None:
    when = datetime(2024, 5, 1, tzinfo=UTC)
    pictures = [
        Picture(1, ("a/b/IMG_01.jpg",), (640, 480), 900, when, FIJI, ("person", "person", "dog")),
        Picture(4, ("IMG_04.jpg",), (1, 1), 9, when, HARARE, ()),
        Picture(2, ("a/IMG_02.jpg",), (480, 640), 900, when, SAMOA, ("person",)),
        Picture(3, ("c/Grün.jpg",), (500, 500), 9000, when, PARIS, ()),
    ]
    filters: list[dict[str, Any]] = [
        {"gps_box": {"south": -30, "west": 170, "north": 0, "east": -160}},
        {"label_count": {"person": {"gte": 2}, "cat": {"lte": 0}}, "label_all": ["dog"]},
        {"name": "img_*.JPG", "folder": "a", "label": ["cat", "person"]},
        {"name": "ün", "size": {"min_megapixels": 0.2, "max_bytes": 9000}, "orientation": ["square", "portrait"]},
        {"date": {"from": "2024-05-01", "to": "2024-05-01"}, "label_count": {"person": {"gte": 1, "lte": 1}}},
    ]
    for home, store in homes.items():
        await fill(store, pictures)
        for given_filter in filters:
            wanted = SearchFilter.model_validate(given_filter)
            meant = expected(pictures, "both", wanted)
            assert await found(store, "both", wanted) == meant, (home, given_filter)
            assert meant, "a filter that finds nothing shows nothing"
        counted = await store.facet(NAME, "folders", where=where_of("images", SearchFilter(label_all=("person",))))
        assert counted == [FacetCount("a", 2), FacetCount("a/b", 1)], home


async def test_a_point_of_an_earlier_release_meets_no_new_condition(homes: dict[str, VectorStore]) -> None:
    picture = Picture(1, ("a/IMG_01.jpg",), (640, 480), 900, datetime(2024, 5, 1, tzinfo=UTC), PARIS, ("dog",))
    kept = {"kind", "image_id", "labels", "folders", "paths", "width", "height", "bytes", "taken_at", "n", "fingerprint"}
    old = [type(one)(one.id, one.vector, {key: one.payload[key] for key in kept & set(one.payload)}) for one in picture.points()]
    for home in ("edge", "memory"):
        await homes[home].upsert(NAME, old)
        for given_filter in (
            {"name": "img"},
            {"label_all": "dog"},
            {"label_count": {"person": {"lte": 5}}},
            {"label_count": {"dog": {"gte": 0}}},
            {"orientation": "landscape"},
            {"size": {"min_megapixels": 0}},
            {"gps_box": {"south": -90, "west": 180, "north": 90, "east": -180}},
        ):
            assert await found(homes[home], "both", SearchFilter.model_validate(given_filter)) == set(), given_filter
        whole = SearchFilter.model_validate({"folder": "a", "size": {"min_width": 640}, "date": {"to": "2024-05-01"}})
        assert len(await found(homes[home], "both", whole)) == 2
