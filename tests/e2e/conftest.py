"""Fixtures of the end-to-end tests: small real weights, real photos, and a product to start."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.browser import PATIENCE_MS, QUIET, chromium
from tests.checkpoints import exported_models_dir
from tests.e2e.product import Product


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODELS_DIR with a small CLIP that knows colours and shapes, a small ResNet and a small YOLO."""
    folder = tmp_path_factory.mktemp("models")
    return exported_models_dir(folder)


@pytest.fixture(scope="session")
def photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """160 real photos, sorted by name."""
    folder = tmp_path_factory.mktemp("photos")
    for archive in ("flickr-80.tar", "coco-80-masks.tar"):
        with tarfile.open(shared / "data" / "photos" / archive) as tar:
            tar.extractall(folder, filter="data")
    return sorted(path for path in folder.rglob("*.jpg"))


@pytest.fixture
def product(tmp_path: Path, weights: Path) -> Iterator[Product]:
    """It computes in ONNX Runtime: to import torch takes three times as long as the rest of a start."""
    with Product(tmp_path, models_dir=weights, environment={"MODEL_RUNTIME": "onnx"}) as instance:
        yield instance


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=QUIET)
        yield opened
        opened.close()
