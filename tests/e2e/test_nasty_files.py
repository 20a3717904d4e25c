"""Difficult files from real corpora: each ends indexed or failed for the right reason, and none takes the process down."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.product import Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

DECODES = {"cmyk", "progressive_jpeg", "alpha", "exif_orientation_example", "avif_ok", "over_20_megapixel", "multi_frame_GIF"}
"""Categories in which every picture that is named as one must be indexed."""

BROKEN = {"truncated", "corrupt", "not_an_image", "unsupported_format", "empty_file", "too_many_pixels"}


def _is_settled(product: Product) -> dict[str, Any] | None:
    status = product.status()
    images, watcher = status["images"], status["watcher"]
    over = images["indexed"] > 0 and images["pending"] == images["running"] == watcher["settling"] == 0
    return status if over and not watcher["reconciling"] else None


def test_every_nasty_file_ends_indexed_or_failed_with_its_reason(product: Product, shared: Path) -> None:
    categories: dict[str, list[str]] = json.loads((shared / "data" / "nasty" / "index.json").read_text())
    with tarfile.open(shared / "data" / "nasty" / "files.tar") as tar:
        tar.extractall(product.images, filter="data")
    names = {path.relative_to(product.images).as_posix() for path in product.images.rglob("*") if path.is_file()}
    product.start_and_wait()
    pid = product.process.pid if product.process else None
    wait_for("all settled", lambda: _is_settled(product), timeout_s=300)

    listed = product.http.get("/api/v1/failures", params={"limit": 1000, "ignored": "true"}).json()
    reasons = {failure["path"]: failure["reason"] for failure in listed["failures"]}
    assert listed["total"] == len(reasons)
    indexed = names - reasons.keys()
    assert product.status()["images"]["indexed"] > 60

    by_category = {name.removeprefix("./"): set(found) for name, found in categories.items()}
    must_decode = {name for name, found in by_category.items() if found & DECODES and name in names and Path(name).suffix}
    assert must_decode
    assert {name: reasons[name] for name in must_decode - indexed} == {}
    assert {name for name in indexed if any("load_fails" in found for found in by_category.get(name, ()))} <= _tolerated(indexed)
    bombs = {name for name, found in by_category.items() if "decompression_bomb" in found and name in reasons}
    assert bombs
    assert {reasons[name] for name in bombs} <= BROKEN
    empty = {name for name, found in by_category.items() if "empty_file" in found and Path(name).suffix in {".jpg", ".png"}}
    assert all(reasons[name] == "empty_file" for name in empty)
    assert set(reasons.values()) <= BROKEN | {"ignored"}
    for name in sorted(reasons)[:20]:
        assert product.images.joinpath(name).exists()
    assert product.process is not None
    assert product.process.poll() is None
    assert product.process.pid == pid
    assert not [event for event in product.log_events() if event["event"] == "model_service_died"]


def _tolerated(indexed: set[str]) -> set[str]:
    """Files that an older Pillow could not load and a newer one can: pictures all the same."""
    return {name for name in indexed if name.startswith("pillow/") or Path(name).suffix in {".jp2", ".webp", ".bmp", ".gif"}}
