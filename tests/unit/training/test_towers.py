from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from model_service.backbones import load_image_backbone
from model_service.encoders import prepared
from model_service.registry import STARTER
from tests.checkpoints import synthetic_picture
from training import mobilenet
from training.towers import UnusableTower, projected, save_image_tower, set_training, start_image, start_text
from training.views import RandomViews, ServedViews


@pytest.mark.shared
def test_the_graphs_mobilenet_answers_in_transformers_as_in_onnx_runtime(shared: Path) -> None:
    weights = shared / "models" / "mobilenet_v2_imagenet.onnx"
    pixels = np.random.default_rng(0).uniform(-1, 1, (2, 3, 224, 224)).astype(np.float32)
    expected = onnxruntime.InferenceSession(weights, providers=["CPUExecutionProvider"]).run(["features"], {"input": pixels})[0]

    model, _ = mobilenet.read(weights)

    with torch.inference_mode():
        found = model(pixel_values=torch.from_numpy(pixels)).pooler_output.numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_shipped_models_backbone_starts_a_training_and_survives_being_saved(tmp_path: Path) -> None:
    image = start_image("starter", tmp_path)
    picture = np.asarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3)), dtype=np.uint8)
    pixels = torch.from_numpy(prepared(image.processor, picture))[None]
    image.backbone.projection = projected(1280, 12)

    save_image_tower(image.backbone.eval(), image.processor, tmp_path / "saved")
    again = load_image_backbone(tmp_path / "saved")

    assert not image.fresh
    assert pixels.shape == (1, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(again(pixels), image.backbone(pixels))
        assert again(pixels).shape == (1, 12)


def test_a_graph_that_is_no_mobilenet_is_refused() -> None:
    with pytest.raises(ValueError, match="convolution"):
        mobilenet.read(STARTER / "text.onnx")


@pytest.mark.parametrize(("name", "features"), [("scratch:resnet18", 512), ("scratch:resnet50", 2048), ("scratch:vit-tiny", 192)])
def test_random_weights_are_to_be_had_by_the_architectures_name(name: str, features: int, tmp_path: Path) -> None:
    image = start_image(name, tmp_path)

    with torch.inference_mode():
        assert image.backbone.eval()(torch.zeros(1, 3, 224, 224)).shape == (1, features)
    assert image.fresh


@pytest.mark.parametrize("name", ["scratch:vgg", "no-such-folder"])
def test_a_tower_that_is_not_to_be_had_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnusableTower, match=r"not known|no weights of"):
        start_image(name, tmp_path)


def test_the_packaged_sentence_encoder_keeps_like_sentences_together(tmp_path: Path) -> None:
    text = start_text("minilm", "mean", tmp_path)
    tokens = text.tokenizer(["a dog runs", "a puppy is running", "the stock market"], padding=True, return_tensors="pt")

    with torch.inference_mode():
        found = torch.nn.functional.normalize(text.backbone(tokens["input_ids"], tokens["attention_mask"]), dim=1)

    assert found.shape == (3, 384)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2]


def test_frozen_norms_answer_alike_in_training_and_learned_ones_do_not() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = model.eval()(pixels)

    set_training(model, freeze_norms=True)
    assert torch.equal(model(pixels), expected)
    set_training(model, freeze_norms=False)
    assert not torch.allclose(model(pixels), expected)


def test_a_random_view_follows_from_seed_epoch_and_row_alone(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n}.jpg" for n in range(2)]
    for path in paths:
        path.write_bytes(synthetic_picture("red", "circle", 64, seed=1))
    processor = start_image("scratch:resnet18", tmp_path).processor

    def view(seed: int, epoch: int, row: int) -> torch.Tensor:
        torch.rand(seed + epoch + row + 1)  # whatever was drawn before
        return RandomViews(paths, processor, smallest_crop=0.3, seed=seed, epoch=epoch)[row][0]

    assert torch.equal(view(1, 1, 0), view(1, 1, 0))
    for other in (view(2, 1, 0), view(1, 2, 0), view(1, 1, 1)):
        assert not torch.equal(view(1, 1, 0), other)
    assert view(1, 1, 0).shape == ServedViews(paths, processor)[0].shape == (3, 224, 224)
