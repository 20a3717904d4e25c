"""Regions without weights: the arithmetic is exact, and what is plain to see is proposed."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.decode import Pixels
from core.masks import Mask
from model_service.registry import STARTER
from training.pictures import UnusablePictures
from training.proposals import baselines, coco, intervals, overlap, search
from training.proposals.__main__ import Options, run
from training.proposals.cells import StarterMap, colour
from training.proposals.regions import Region, bbox, distinct
from training.proposals.trees import TreeProposer


@pytest.fixture(scope="module", params=["colour", "colour and starter"])
def tree(request: pytest.FixtureRequest) -> TreeProposer:
    return TreeProposer((colour,) if request.param == "colour" else (StarterMap(STARTER, threads=1), colour))


def box(left: int, top: int, right: int, bottom: int, size: tuple[int, int] = (10, 20)) -> Mask:
    mask = np.zeros(size, dtype=np.bool_)
    mask[top:bottom, left:right] = True
    return mask


def disc(height: int, width: int, centre: tuple[int, int], radius: int) -> tuple[Pixels, Mask]:
    rows, columns = np.mgrid[:height, :width]
    mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
    pixels = np.where(mask[..., None], np.array([240, 210, 40]), np.array([40, 60, 90])).astype(np.uint8)
    return pixels, mask


def test_overlap_is_what_is_common_over_what_either_covers() -> None:
    things, regions = [box(0, 0, 10, 10), box(10, 0, 20, 10)], [box(5, 0, 15, 10), box(0, 0, 20, 10), box(0, 0, 10, 10)]
    expected = [[1 / 3, 1 / 2, 1.0], [1 / 3, 1 / 2, 0.0]]
    np.testing.assert_allclose(overlap.mask_ious(things, regions), expected, rtol=1e-12)
    np.testing.assert_allclose(overlap.box_ious(things, regions), expected, rtol=1e-12)


def test_boxes_may_agree_where_masks_do_not() -> None:
    corners = box(0, 0, 1, 1) | box(19, 9, 20, 10)
    assert overlap.box_ious([corners], [box(0, 0, 20, 10)])[0, 0] == 1.0
    assert overlap.mask_ious([corners], [box(0, 0, 20, 10)])[0, 0] == pytest.approx(2 / 200)


def test_the_best_counts_only_among_the_first() -> None:
    overlaps = np.array([[0.1, 0.9, 0.4]])
    assert [overlap.best_of(overlaps, most)[0] for most in (1, 2, 3, 32)] == [0.1, 0.9, 0.9, 0.9]


def test_no_region_covers_nothing() -> None:
    assert overlap.best_of(overlap.mask_ious([box(0, 0, 1, 1)], []), 8).tolist() == [0.0]


def test_a_box_ends_after_its_last_pixel() -> None:
    assert bbox(box(3, 2, 7, 9)) == (3.0, 2.0, 4.0, 7.0)


def test_the_same_region_is_proposed_once_and_the_better_one_stays() -> None:
    worse, better, other = Region(box(0, 0, 10, 9), 0.5), Region(box(0, 0, 10, 10), 0.9), Region(box(10, 0, 20, 10), 0.1)
    assert [region.score for region in distinct([worse, other, better], most=8, same_iou=0.7)] == [0.9, 0.1]


def test_the_whole_picture_covers_a_thing_by_its_share() -> None:
    pixels, mask = disc(100, 200, (50, 100), 30)
    (whole,) = baselines.whole_image(pixels)
    assert overlap.mask_ious([mask], [whole.mask])[0, 0] == pytest.approx(mask.mean())


def test_the_centre_ellipse_covers_its_share_of_the_picture() -> None:
    (ellipse,) = baselines.centre_ellipse(np.zeros((400, 600, 3), dtype=np.uint8))
    assert ellipse.mask.mean() == pytest.approx(np.pi / 4 * 0.6**2, rel=0.01)
    assert bbox(ellipse.mask) == (120.0, 80.0, 360.0, 240.0)


def test_the_grid_begins_at_the_centre_and_reaches_every_pixel() -> None:
    found = baselines.grid(np.zeros((100, 200, 3), dtype=np.uint8))
    assert len(found) == 9 + 25
    assert bbox(found[0].mask) == (40.0, 20.0, 120.0, 60.0)
    assert np.any([region.mask for region in found], axis=0).all()


@pytest.mark.parametrize(("size", "centre", "radius"), [((240, 320), (120, 160), 60), ((400, 300), (130, 190), 70)])
def test_a_bright_disc_on_a_plain_ground_is_proposed(
    tree: TreeProposer, size: tuple[int, int], centre: tuple[int, int], radius: int
) -> None:
    pixels, mask = disc(*size, centre, radius)
    found = tree(pixels)
    assert overlap.best_of(overlap.mask_ious([mask], [region.mask for region in found]), 8)[0] > 0.8


def test_regions_come_best_first_alike_each_time_and_of_the_pictures_size(tree: TreeProposer) -> None:
    noise = np.random.default_rng(0).integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(noise).resize((160, 120)))
    first, second = (tree(pixels) for _ in range(2))
    assert 1 < len(first) <= 32
    assert [region.score for region in first] == sorted((region.score for region in first), reverse=True)
    assert all(region.mask.shape == (120, 160) and region.mask.any() for region in first)
    assert all((one.mask == other.mask).all() for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize("size", [(64, 64), (8, 400), (500, 9), (1, 1)])
def test_a_plain_picture_of_any_shape_has_no_regions(size: tuple[int, int]) -> None:
    assert TreeProposer((colour,))(np.full((*size, 3), 128, dtype=np.uint8)) == []


def test_intervals_hold_their_mean_and_are_drawn_by_photo() -> None:
    alike = [np.full(50, 0.0), np.full(50, 1.0), np.zeros(0)]
    found = intervals.over_values(alike, seed=1)
    assert found == (0.5, 0.0, 1.0)  # two photos, not a hundred things
    assert intervals.over_values(alike, seed=1) == found
    assert intervals.over_groups([np.array([1.0, 1.0, 1.0]), np.array([0.0])], seed=0).mean == 0.5
    assert np.isnan(intervals.over_values([np.zeros(0)], seed=0).mean)


def embedded(picture: float, *regions: float) -> search.Embedded:
    return search.Embedded(np.array([picture], dtype=np.float32), np.array(regions, dtype=np.float32).reshape(-1, 1))


@pytest.mark.parametrize(
    ("way", "expected"),
    [("picture", [1, 0]), ("regions", [0, 1]), ("better", [1, 1]), ("mean", [1, 1])],
)
def test_a_photo_is_found_by_its_picture_or_its_best_region(way: search.Way, expected: list[int]) -> None:
    others = [embedded(0.5, 0.1) for _ in range(5)]
    photos = [embedded(0.9, 0.05, -1.0), embedded(0.4, 0.95, 0.0), *others]
    asked = search.Questions(("a photo of a cup",), ((0, 1),), within=5)
    (found,) = search.found(asked, np.array([[1.0]], dtype=np.float32), photos, way)
    assert found.tolist() == expected


def tar_of(folder: Path, pictures: dict[str, tuple[Pixels, list[tuple[str, list[float], int]]]]) -> Path:
    """As COCO packs them: outlines are rectangles (left, top, right, bottom), with `iscrowd`."""
    names = sorted({category for _, things in pictures.values() for category, _, _ in things})
    content: dict[str, list[dict[str, object]]] = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(names)],
        "images": [{"id": n, "file_name": file} for n, file in enumerate(pictures)],
        "annotations": [
            {"image_id": n, "category_id": names.index(category), "iscrowd": crowd, "segmentation": [outline(corners)]}
            for n, (_, things) in enumerate(pictures.values())
            for category, corners, crowd in things
        ],
    }
    archive = folder / "photos.tar"
    with tarfile.open(archive, "w") as tar:
        add(tar, "annotations/instances_tiny.json", json.dumps(content).encode())
        said = [{"image_id": n, "caption": f"A photo called {file}. "} for n, file in enumerate(pictures)]
        add(tar, "annotations/captions_tiny.json", json.dumps({**content, "annotations": said}).encode())
        for name, (pixels, _) in pictures.items():
            add(tar, f"tiny/{name}", png(pixels))
    return archive


def outline(corners: list[float]) -> list[float]:
    left, top, right, bottom = corners
    return [left, top, right, top, right, bottom, left, bottom]


def png(pixels: NDArray[np.uint8]) -> bytes:
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "PNG")
    return written.getvalue()


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def two_photos(folder: Path) -> Path:
    sun, sea = disc(120, 160, (60, 80), 40)[0], np.full((120, 160, 3), (20, 60, 160), dtype=np.uint8)
    sea[70:110, 20:60] = (250, 250, 250)
    return tar_of(
        folder,
        {
            "b.png": (sea, [("boat", [20, 70, 60, 110], 0), ("boat", [100, 10, 140, 20], 1)]),
            "a.png": (sun, [("orange", [40, 20, 120, 100], 0), ("kite", [0, 0, 4, 4], 0)]),
        },
    )


def test_photos_come_by_name_with_things_and_captions_and_without_crowds(tmp_path: Path) -> None:
    first, second = coco.photos(two_photos(tmp_path))
    assert [thing.category for thing in (*first.things, *second.things)] == ["orange", "kite", "boat"]
    assert second.captions == ("A photo called b.png.",)
    assert second.pixels[80, 30].tolist() == [250, 250, 250]
    assert second.things[0].mask[70:110, 20:60].all()
    assert second.things[0].share == pytest.approx(40 * 40 / (120 * 160), rel=0.03)


def test_a_tar_without_instances_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "empty.tar", "w") as tar:
        add(tar, "tiny/a.png", b"")
    with pytest.raises(UnusablePictures, match="no tar of COCO photos"):
        coco.photos(tmp_path / "empty.tar")


def test_every_number_is_measured_of_two_photos(tmp_path: Path) -> None:
    options = Options(photos=two_photos(tmp_path), out=tmp_path / "runs")
    found = run(options)
    rows = {row.name: row for row in found.rows}
    asked = (found.names, found.photos_named, found.captions)
    assert (found.photos, found.things, found.small_things, *asked) == (2, 3, 1, 3, 3, 2)
    assert rows["outlines by people"].things.mask_iou[8].mean == 1.0
    assert rows["outlines by people"].things_shown.mean == 1.0
    assert rows["whole picture"].things.mask_iou[32].mean < 0.4 < rows["colour tree"].things.mask_iou[8].mean
    written = json.loads((tmp_path / "runs/proposals.json").read_text())
    assert written["rows"][0]["things"]["mask_iou"]["1"] == pytest.approx(rows["whole picture"].things.mask_iou[1])
    assert "| colour and starter tree |" in (tmp_path / "runs/proposals.md").read_text()
