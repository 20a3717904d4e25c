"""The main job through `make run`, as its user does it: drop pictures in, find them, rate them, move them, kill it, start it again."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import httpx
import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.agreement import disagreements
from tests.e2e.product import MAKE_RUN, Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

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


def test_real_photos_with_real_segments_are_searchable_by_picture_and_by_region(
    product: Product, shared: Path, photos: list[Path]
) -> None:
    product.environment["SEGMENTER"] = str(shared / "models" / "yolov8n-seg.pt")
    for photo in photos[:12]:
        shutil.copy(photo, product.images)
    product.start_and_wait()
    status = product.wait_until_indexed(12)
    assert status["segments"] > 12
    for photo in photos[:12:4]:
        best = product.search_by_picture(photo.read_bytes(), top_k=1)["matches"][0]
        assert best["image_name"] == photo.name
        assert best["score"] > 0.99
    region = product.search("anything", scope="segments", top_k=1)["matches"][0]
    x, y, width, height = region["segment"]["bbox"]
    assert width > 0
    assert height > 0
    assert 0 <= x <= region["width"]
    assert 0 <= y <= region["height"]
    mask = product.http.get(region["segment"]["mask_url"])
    assert mask.headers["content-type"] == "image/png"
    again = product.http.post(f"/api/v1/images/{region['image_id']}/segment", json={"mode": "full"})
    assert again.status_code == 200, again.text


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
