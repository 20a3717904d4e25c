"""The main job through `make run`, as its user does it: drop pictures in, find them, rate them, move them, kill it, start it again."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import httpx
import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.agreement import disagreements
from tests.e2e.product import MAKE_RUN, Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.serial, pytest.mark.timeout(420)]

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("circle", "square")


def _drop_synthetic_pictures(folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    for colour in COLOURS:
        for shape in SHAPES:
            (folder / f"{colour}-{shape}.jpg").write_bytes(synthetic_picture(colour, shape, 320, seed=7))
    return len(COLOURS) * len(SHAPES)


def _top_name(product: Product, text: str) -> str:
    name: str = product.search(text, top_k=1)["matches"][0]["image_name"]
    return name


def test_pictures_are_found_rated_moved_and_forgotten_through_make_run(product: Product) -> None:
    product.environment["MODEL_RUNTIME"] = "torch"
    count = _drop_synthetic_pictures(product.images / "before" / "the start")
    product.start_and_wait(MAKE_RUN)
    product.wait_until_indexed(count)
    for colour in COLOURS:
        assert _top_name(product, f"a {colour} circle").startswith(colour)

    found = product.search("a blue square", top_k=3)
    assert found["model_name"] == "CLIP"
    assert [match["score"] for match in found["matches"]] == sorted((m["score"] for m in found["matches"]), reverse=True)
    feedback = {"user_feedback": 9, "jwt": found["jwt"]}
    assert product.http.post("/api/v1/create-feedback", json=feedback).status_code == 201
    assert product.http.post("/api/v1/create-feedback", json=feedback).status_code == 409
    assert product.http.post("/api/v1/create-feedback", json={"user_feedback": 9}).status_code == 401

    picture = synthetic_picture("green", "square", 320, seed=7)
    by_picture = product.search_by_picture(picture, top_k=1)["matches"][0]
    assert by_picture["image_name"] == "green-square.jpg"
    assert by_picture["score"] > 0.99
    assert product.http.get(by_picture["image_url"]).content == picture
    assert product.http.get(by_picture["thumbnail_url"]).headers["content-type"].startswith("image/")

    indexed_before = product.status()["images"]["indexed"]
    (product.images / "before").rename(product.images / "after")
    wait_for(
        "the new place", lambda: product.search("red circle", top_k=1)["matches"][0]["path"].startswith("after/"), timeout_s=10
    )
    assert product.status()["images"]["indexed"] == indexed_before

    shutil.rmtree(product.images / "after")
    product.wait_until_indexed(0, timeout_s=20)
    assert product.search("a red circle")["matches"] == []


def test_an_upload_is_searchable_and_can_be_deleted_again(product: Product) -> None:
    product.start_and_wait()
    picture = synthetic_picture("yellow", "circle", 400, seed=3)
    uploaded = product.http.post("/api/v1/images", files={"file": ("my picture.jpg", picture, "image/jpeg")})
    assert uploaded.status_code == 202, uploaded.text
    status_url = uploaded.json()["status_url"]
    wait_for("indexed", lambda: product.http.get(status_url).json()["state"] == "indexed", timeout_s=30)
    assert (product.images / "my picture.jpg").read_bytes() == picture
    assert _top_name(product, "a yellow circle") == "my picture.jpg"
    assert product.http.delete(status_url).status_code == 204
    assert product.http.get(status_url).status_code == 404
    wait_for("forgotten", lambda: product.search("a yellow circle")["matches"] == [], timeout_s=10)
    assert list(product.images.iterdir()) == []


def test_a_new_file_is_searchable_within_two_seconds_and_a_slow_copy_is_never_read_half(product: Product) -> None:
    product.start_and_wait()
    (product.images / "warm-up.jpg").write_bytes(synthetic_picture("green", "circle", 320, seed=1))
    product.wait_until_indexed(1)

    picture = synthetic_picture("red", "square", 640, seed=2)
    with (product.images / "slow.jpg").open("wb") as copy:
        for start in range(0, len(picture), len(picture) // 4 + 1):
            copy.write(picture[start : start + len(picture) // 4 + 1])
            copy.flush()
            time.sleep(1.0)
            assert product.status()["images"]["indexed"] == 1
            assert product.status()["images"]["failed"] == 0
    copied_at = time.monotonic()
    product.wait_until_indexed(2, timeout_s=10)
    assert time.monotonic() - copied_at < 2.0
    assert not [event for event in product.log_events() if event["event"] == "image_failed"]


def test_what_happens_while_it_is_down_is_caught_up_and_ctrl_c_ends_it_cleanly(product: Product) -> None:
    _drop_synthetic_pictures(product.images)
    product.start_and_wait()
    product.wait_until_indexed(8)
    product.kill()

    (product.images / "sub").mkdir()
    (product.images / "red-circle.jpg").rename(product.images / "sub" / "moved.jpg")
    (product.images / "blue-circle.jpg").unlink()
    (product.images / "green-circle.jpg").write_bytes(synthetic_picture("yellow", "square", 300, seed=11))
    (product.images / "new.jpg").write_bytes(synthetic_picture("blue", "square", 300, seed=12))
    product.start_and_wait()
    product.wait_until_indexed(8)
    moved = product.search("a red circle", top_k=1)["matches"][0]
    assert moved["path"] == "sub/moved.jpg"
    assert product.interrupt() == 0
    assert disagreements(product.images, product.state) == []


def test_real_photos_with_real_models_through_make_run(product: Product, shared: Path, photos: list[Path]) -> None:
    """The starter model and the real YOLOv8n-seg on 40 COCO photos, which neither was trained to caption."""
    product.environment |= {"MODEL_PROFILE": "starter", "SEGMENTER": str(shared / "models" / "yolov8n-seg.pt")}
    coco = [photo for photo in photos if photo.parent.name == "train2017"][:40]
    for photo in coco[:39]:
        shutil.copy(photo, product.images)
    product.start_and_wait(MAKE_RUN)
    status = product.wait_until_indexed(39, timeout_s=180)
    assert status["segments"] > 39

    uploaded = product.http.post("/api/v1/images", files={"file": ("uploaded.jpg", coco[39].read_bytes(), "image/jpeg")})
    assert uploaded.status_code == 202, uploaded.text
    product.wait_until_indexed(40)
    captions = _one_caption_each(coco)
    found = sum(
        name in {match["image_name"] for match in product.search(caption, top_k=10)["matches"]}
        for name, caption in captions.items()
    )
    assert found >= 0.6 * len(captions), f"{found} of {len(captions)} captions find their photo among the first 10 of 40"

    by_picture = product.search_by_picture(coco[0].read_bytes(), top_k=1)
    assert by_picture["matches"][0]["image_name"] == coco[0].name
    assert by_picture["matches"][0]["score"] > 0.99
    rating = {"user_feedback": 10, "jwt": by_picture["matches"][0]["jwt"], "image_id": by_picture["matches"][0]["image_id"]}
    assert product.http.post("/api/v1/create-feedback", json=rating).status_code == 201
    _check_a_region(product)

    (product.images / coco[0].name).rename(product.images / "renamed.jpg")
    (product.images / coco[1].name).unlink()
    product.kill()
    product.start_and_wait(MAKE_RUN)
    product.wait_until_indexed(39)
    assert product.search_by_picture(coco[0].read_bytes(), top_k=1)["matches"][0]["image_name"] == "renamed.jpg"
    assert product.http.post("/api/v1/create-feedback", json=rating).status_code == 409
    product.interrupt()
    wait_for("the port is free", lambda: _refuses(product), timeout_s=10)
    assert disagreements(product.images, product.state) == []


def _one_caption_each(coco: list[Path]) -> dict[str, str]:
    """A caption by the name that the photo has in the product; the last photo is uploaded under another."""
    annotations = json.loads((coco[0].parents[1] / "annotations" / "captions_train2017.json").read_text())
    by_id = {caption["image_id"]: caption["caption"] for caption in annotations["annotations"]}
    captions = {photo.name: by_id[int(photo.stem)] for photo in coco}
    captions["uploaded.jpg"] = captions.pop(coco[-1].name)
    return captions


def _check_a_region(product: Product) -> None:
    region = product.search("a person", scope="segments", top_k=1)["matches"][0]
    x, y, width, height = region["segment"]["bbox"]
    assert 0 <= x < x + width <= region["width"] + 1
    assert 0 <= y < y + height <= region["height"] + 1
    assert product.http.get(region["segment"]["mask_url"]).headers["content-type"] == "image/png"
    again = product.http.post(f"/api/v1/images/{region['image_id']}/segment", json={"mode": "full"})
    assert again.status_code == 200, again.text


def _refuses(product: Product) -> bool:
    try:
        product.http.get("/health/live")
    except httpx.TransportError:
        return True
    return False


def test_without_any_weights_it_starts_says_so_and_answers_503(tmp_path: Path) -> None:
    with Product(tmp_path, models_dir=tmp_path / "no models") as product:
        (product.images / "a.jpg").write_bytes(synthetic_picture("red", "circle", 200, seed=1))
        product.start()
        wait_for("no_model is said", lambda: _ready_code(product) == "no_model", timeout_s=60)
        refused = product.http.post("/api/v1/search-image", json={"text": "anything"})
        assert refused.status_code == 503
        assert refused.headers["content-type"].startswith("application/problem+json")
        assert "MODELS_DIR" in refused.json()["detail"]
        assert product.status()["images"]["pending"] == 1
        assert product.interrupt() == 0


def _ready_code(product: Product) -> str | None:
    try:
        answer = product.http.post("/api/v1/search-image", json={"text": "anything"})
    except httpx.TransportError:
        return None
    code: str | None = answer.json().get("code")
    return code
