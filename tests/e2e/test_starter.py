"""The first run of a new user without a network: the model that the repository ships, real photos, everyday words."""

from __future__ import annotations

import json
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from tests.e2e.agreement import disagreements
from tests.e2e.product import MAKE_RUN, Product

QUERIES = {
    "a bus": "bus",
    "a train at the station": "train",
    "an elephant": "elephant",
    "a motorcycle": "motorcycle",
    "an airplane": "airplane",
    "a teddy bear": "teddy bear",
    "zebras in the grass": "zebra",
    "a toilet in a bathroom": "toilet",
    "a boat on the water": "boat",
    "a sandwich on a plate": "sandwich",
}
"""Everyday words, and the thing of COCO's that a right photo shows."""
_LEAST_SHARE = 0.01


@pytest.mark.e2e
@pytest.mark.shared
def test_fifty_photos_are_found_by_everyday_words_with_nothing_downloaded(tmp_path: Path, photos: list[Path]) -> None:
    coco = [photo for photo in photos if photo.parent.name == "train2017"][:50]
    shown = _things(coco[0].parents[1] / "annotations" / "instances_train2017.json")
    no_weights = tmp_path / "models"
    with Product(tmp_path, models_dir=no_weights, environment={"MODEL_PROFILE": "starter", "SEGMENTER": "none"}) as product:
        for photo in coco:
            shutil.copy(photo, product.images)
        product.start_and_wait(MAKE_RUN)
        product.wait_until_indexed(50, timeout_s=120)

        for query, thing in QUERIES.items():
            right = {photo.name for photo in coco if thing in shown[int(photo.stem)]}
            answer = product.search(query, top_k=3)
            names = [match["image_name"] for match in answer["matches"]]
            assert right & set(names), f"{query!r} found {names}, and none of {sorted(right)}"
            assert answer["model_name"] == "starter"
        assert {path.name for path in no_weights.iterdir()} <= {"served"}, "a note of what was served, and nothing downloaded"
        product.interrupt()
        assert disagreements(product.images, product.state) == []


def _things(annotations: Path) -> dict[int, set[str]]:
    """What each photo shows on more than a hundredth of it, by image id."""
    content = json.loads(annotations.read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    areas = {image["id"]: image["width"] * image["height"] for image in content["images"]}
    found: dict[int, set[str]] = defaultdict(set)
    for annotation in content["annotations"]:
        if annotation["area"] > _LEAST_SHARE * areas[annotation["image_id"]]:
            found[annotation["image_id"]].add(names[annotation["category_id"]])
    return found
