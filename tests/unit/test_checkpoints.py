"""The checkpoints of the end-to-end tests are worth testing with: real loaders load them, and the tiny CLIP knows what it sees."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from PIL import Image

from tests.checkpoints import CLIP_ID, COLOURS, RESNET_ID, SEGMENTER_FILE, SHAPES, models_dir, synthetic_picture

REPOSITORY = Path(__file__).resolve().parents[2]

UNSEEN_SEEDS = range(900_000, 900_006)

LOADING = """
import io, json, sys
from itertools import product
from pathlib import Path
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoTokenizer
from tests.checkpoints import CLIP_ID, COLOURS, RESNET_ID, SEGMENTER_FILE, SHAPES, synthetic_picture

folder, seeds = Path(sys.argv[1]), json.loads(sys.argv[2])
clip = AutoModel.from_pretrained(folder / CLIP_ID, local_files_only=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder / CLIP_ID, local_files_only=True)
processor = AutoImageProcessor.from_pretrained(folder / CLIP_ID, local_files_only=True)
kinds = list(product(COLOURS, SHAPES))
texts = tokenizer([f"a {colour} {shape}" for colour, shape in kinds], padding=True, return_tensors="pt")
pictures = [Image.open(io.BytesIO(synthetic_picture(*kind, 320, seed=seed))) for kind in kinds for seed in seeds]
with torch.inference_mode():
    scores = clip(**texts, **processor(images=pictures, return_tensors="pt")).logits_per_image
backbone = AutoModel.from_pretrained(folder / RESNET_ID, local_files_only=True).eval()
pixels = AutoImageProcessor.from_pretrained(folder / RESNET_ID, local_files_only=True)(images=pictures[:4], return_tensors="pt")
with torch.inference_mode():
    pooled = backbone(**pixels).pooler_output.flatten(1)
from ultralytics import YOLO
segmenter = YOLO(str(folder / SEGMENTER_FILE))
results = segmenter.predict(pictures[0], imgsz=320, verbose=False)
json.dump({
    "seen_as": scores.argmax(1).tolist(),
    "found_first": scores.argmax(0).tolist(),
    "unknown": tokenizer("zebra")["input_ids"] == tokenizer("<unk>")["input_ids"],
    "resnet": list(pooled.shape),
    "resnet_differ": float((pooled[0] - pooled[3]).abs().max()),
    "task": segmenter.task,
    "results": len(results),
}, sys.stdout)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models_dir(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def loaded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a process that has no network, and an empty home and working folder, makes of the checkpoints."""
    import json

    home = tmp_path_factory.mktemp("home")
    settings = tmp_path_factory.mktemp("yolo")
    environment = {
        **os.environ,
        "HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "YOLO_CONFIG_DIR": str(settings),
        "PYTHONPATH": str(REPOSITORY),
    }
    command = [sys.executable, "-c", LOADING, str(folder), json.dumps(list(UNSEEN_SEEDS))]
    child = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert child.returncode == 0, child.stderr
    seen: dict[str, object] = json.loads(child.stdout.splitlines()[-1])
    return seen


def _kinds() -> list[tuple[str, str]]:
    return list(product(COLOURS, SHAPES))


def test_the_tiny_clip_tells_colours_and_shapes_of_unseen_pictures(loaded: dict[str, object]) -> None:
    kinds = _kinds()
    truth = [kind for kind in kinds for _ in UNSEEN_SEEDS]
    seen = [kinds[n] for n in loaded["seen_as"]]  # type: ignore[attr-defined]
    right_colour = sum(a[0] == b[0] for a, b in zip(truth, seen, strict=True)) / len(truth)
    right_shape = sum(a[1] == b[1] for a, b in zip(truth, seen, strict=True)) / len(truth)
    print(f"colour {right_colour:.3f}, shape {right_shape:.3f}")
    assert right_colour >= 0.95
    assert right_shape >= 0.8


def test_a_red_circle_ranks_a_red_circle_first_among_all_kinds(loaded: dict[str, object]) -> None:
    kinds = _kinds()
    first = [kinds[n // len(UNSEEN_SEEDS)] for n in loaded["found_first"]]  # type: ignore[attr-defined]
    assert first[kinds.index(("red", "circle"))] == ("red", "circle")
    assert sum(a == b for a, b in zip(first, kinds, strict=True)) >= len(kinds) - 1


def test_the_other_parts_load_offline_through_their_real_loaders(folder: Path, loaded: dict[str, object]) -> None:
    assert loaded["unknown"] is True
    assert loaded["resnet"] == [4, 48]
    assert loaded["resnet_differ"] != 0
    assert loaded["task"] == "segment"
    assert loaded["results"] == 1
    assert (folder / SEGMENTER_FILE).stat().st_size < 10_000_000
    assert (folder / CLIP_ID / "tokenizer.json").exists()
    assert (folder / RESNET_ID / "config.json").exists()


def test_a_synthetic_picture_follows_from_its_seed_alone() -> None:
    one, again, other = (synthetic_picture("red", "circle", 200, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    picture = Image.open(io.BytesIO(one))
    assert picture.format == "JPEG"
    assert picture.size == (200, 200)
    assert len({synthetic_picture(*kind, 64, seed=1) for kind in _kinds()}) == len(_kinds())
