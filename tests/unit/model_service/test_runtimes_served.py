from __future__ import annotations

import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.schemas import SegmentMode
from core.threads import ThreadBudget
from model_service import exported, registry, segmenter
from model_service.exporting import parts
from model_service.exporting.making import Held, Workshop, make
from model_service.exports import Exports, Order
from model_service.parts import Instance, Parts
from model_service.runtimes import Choice, Precision, Runtime
from model_service.settings import ModelSettings
from model_service.weights import Checkpoint
from tests.unit.model_service.checkpoints import tiny_clip


def _iou(one: Instance, other: Instance) -> float:
    return float(np.logical_and(one.mask, other.mask).sum() / np.logical_or(one.mask, other.mask).sum())


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_an_exported_segmenter_finds_the_masks_that_torch_finds(
    precision: Precision, shared: Path, tmp_path: Path, real_photos: list[np.ndarray]
) -> None:
    checkpoint = Checkpoint(shared / "models" / "yolov8n-seg.pt", "yolov8n-seg.pt", "3" * 16)
    held = Held.of(real_photos[:32], "pictures")
    precisions = (precision,) if precision is Precision.FP32 else (precision, Precision.FP32)

    def run(order: Order) -> None:
        (wanted,) = order.wanted
        make(wanted, parts.opened(wanted, held), Workshop(tmp_path, held, 2, lambda event, *, level="info", **_: None))

    made = Exports(tmp_path, tmp_path, Choice(Runtime.OPENVINO, "cpu", 2, precisions), can_quantise=True, run=run)
    (export,) = made.have(made.wanted("segments", checkpoint))
    loaded = exported.segmenter(export, checkpoint, max_segments=20, min_score=0.25, threads=ThreadBudget.of(2))
    torch = segmenter.load(checkpoint, device="cpu", max_segments=20, min_score=0.25)

    matched, missed = list[float](), 0
    pictures = real_photos[32:40]
    alone = loaded.segment(pictures, SegmentMode.STANDARD)
    with ThreadPoolExecutor(4) as threads:  # more than it was loaded for
        together = threads.map(lambda picture: loaded.segment([picture], SegmentMode.STANDARD)[0], pictures)
    assert [[one.bbox for one in found] for found in together] == [[one.bbox for one in found] for found in alone]
    for mode in (SegmentMode.QUICK, SegmentMode.STANDARD):
        for found, expected in zip(loaded.segment(pictures, mode), torch.segment(pictures, mode), strict=True):
            for instance in expected:
                if instance.score > 0.5:
                    best = max((_iou(instance, one) for one in found if one.label == instance.label), default=0.0)
                    matched += [best] if best > 0.5 else []
                    missed += best <= 0.5
    assert loaded.card.precision == precision
    assert loaded.card.model_name == torch.card.model_name == "YOLO"
    assert len(matched) > 10
    assert np.mean(matched) > (0.999 if precision is Precision.FP32 else 0.95)
    assert missed <= (0 if precision is Precision.FP32 else 0.06 * len(matched))


@pytest.fixture(scope="module")
def real_photos(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    folder = tmp_path_factory.mktemp("photos")
    with tarfile.open(shared / "data" / "photos" / "coco-80-masks.tar") as tar:
        tar.extractall(folder, filter="data")
    return [np.asarray(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.jpg"))[:40]]


def test_a_profile_is_exported_by_a_process_of_its_own_and_keeps_its_name_and_fingerprint(tmp_path: Path) -> None:
    tiny_clip(tmp_path / "mine" / "clip")
    (tmp_path / "mine" / "profile.toml").write_text('[embedder]\nmodel = "clip"\n')

    def load(runtime: str) -> Parts:
        settings = ModelSettings(
            models_dir=tmp_path,
            images_dir=tmp_path / "none",
            model_profile="mine",
            segmenter="none",
            model_runtime=runtime,  # type: ignore[arg-type]
            model_precision="auto",
            model_threads=1,
        )
        return registry.load(settings)

    torch, openvino = load("torch"), load("openvino")

    card = openvino.image_towers[0].card
    assert (card.runtime.partition(" ")[0], card.precision) == ("openvino", "int8")
    assert openvino.notice is None
    assert (openvino.fingerprint, openvino.image_towers[0].space) == (torch.fingerprint, torch.image_towers[0].space)
    vectors = [loaded.text_tower.embed_texts(["a photo of the red dog", "cat"]) for loaded in (torch, openvino)]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > 0.99
