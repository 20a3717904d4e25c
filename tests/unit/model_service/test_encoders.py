from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from model_service import encoders, onnx_encoder
from model_service.backbones import UnusableCheckpoint
from model_service.parts import Tensor
from model_service.towers import PictureTower, TwoTowers
from model_service.weights import Checkpoint
from tests.unit.model_service.checkpoints import projection, tiny_bert, tiny_clip, tiny_onnx, tiny_resnet

TEXTS = ["a photo of the red dog", "cat", "the grass on the cat of a dog on a red cat of the grass on the grass of a cat"]


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    smooth = [rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(4)]
    sizes = [(120, 80), (50, 200), (32, 32), (640, 480)]
    return [np.asarray(Image.fromarray(p).resize(size, Image.Resampling.BICUBIC)) for p, size in zip(smooth, sizes, strict=True)]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> TwoTowers:
    return encoders.load_dual_encoder(Checkpoint(clip_folder, "tiny/clip", "0" * 16), device="cpu", model_name="CLIP")


@pytest.fixture(scope="module")
def resnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_resnet(tmp_path_factory.mktemp("resnet"))


@pytest.fixture(scope="module")
def resnet(resnet_folder: Path) -> PictureTower:
    return encoders.load_image_tower(Checkpoint(resnet_folder, "tiny/resnet", "1" * 16), device="cpu", model_name="ResNet")


@pytest.fixture
def starter(tmp_path: Path) -> onnx_encoder.OnnxDualEncoder:
    return onnx_encoder.load(tiny_onnx(tmp_path / "starter"), model_name=None, threads=1)


def unit(features: object) -> Tensor:
    rows = np.asarray(features, dtype=np.float32).reshape(len(features), -1)  # type: ignore[arg-type]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def cosines(one: Tensor, other: Tensor) -> np.ndarray:
    return (unit(one) * unit(other)).sum(axis=1)


def test_a_clips_picture_embeddings_are_those_of_its_own_processor_and_model(clip: TwoTowers, clip_folder: Path) -> None:
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    processor = transformers.CLIPProcessor.from_pretrained(clip_folder)
    images = [Image.fromarray(picture) for picture in pictures()]
    with torch.no_grad():
        vision = model.vision_model(processor(images=images, return_tensors="pt")["pixel_values"])
        expected = model.visual_projection(vision.pooler_output).numpy()

    assert cosines(clip.embed([clip.prepare(p) for p in pictures()]), expected).min() > 0.9999


def test_a_clips_text_embeddings_are_those_of_its_own_tokenizer_and_model(clip: TwoTowers, clip_folder: Path) -> None:
    import torch
    import transformers

    model = transformers.CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(clip_folder)
    expected = []
    for text in TEXTS:
        tokens = tokenizer([text], truncation=True, max_length=12, return_tensors="pt")
        with torch.no_grad():
            words = model.text_model(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            expected.append(model.text_projection(words.pooler_output)[0].numpy())

    assert cosines(clip.embed_texts(TEXTS), np.stack(expected)).min() > 0.9999


def test_a_resnets_embeddings_are_its_pooled_output(resnet: PictureTower, resnet_folder: Path) -> None:
    import torch
    import transformers

    model = transformers.ResNetModel.from_pretrained(resnet_folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(resnet_folder, backend="pil")
    with torch.no_grad():
        expected = [model(**processor(Image.fromarray(p), return_tensors="pt")).pooler_output[0].numpy() for p in pictures()]

    assert cosines(resnet.embed([resnet.prepare(p) for p in pictures()]), np.stack(expected)).min() > 0.9999
    assert (resnet.space.dim, resnet.space.text, resnet.space.collection) == (16, False, "resnet-11111111")


@pytest.mark.parametrize("name", ["clip", "resnet", "starter"])
def test_a_picture_embeds_alike_alone_and_in_a_batch_to_length_one(name: str, request: pytest.FixtureRequest) -> None:
    tower = request.getfixturevalue(name)
    prepared = [tower.prepare(picture) for picture in pictures()]

    batched = tower.embed(prepared)
    alone = np.concatenate([tower.embed([one]) for one in prepared])

    assert batched.shape == (len(prepared), tower.space.dim)
    assert batched.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(batched, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(batched, alone, atol=1e-5)


@pytest.mark.parametrize("name", ["clip", "starter"])
def test_a_text_embeds_alike_alone_and_beside_longer_ones(name: str, request: pytest.FixtureRequest) -> None:
    tower = request.getfixturevalue(name)

    batched = tower.embed_texts(TEXTS)
    alone = np.concatenate([tower.embed_texts([text]) for text in TEXTS])

    np.testing.assert_allclose(np.linalg.norm(batched, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(batched, alone, atol=1e-5)
    assert np.abs(batched[0] - batched[1]).max() > 1e-3


@pytest.mark.parametrize("name", ["clip", "resnet", "starter"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (1, 20_000), (20_000, 2)])
def test_pictures_of_hairline_shapes_are_prepared_like_any_other(
    name: str, shape: tuple[int, int], request: pytest.FixtureRequest
) -> None:
    tower = request.getfixturevalue(name)

    prepared = tower.prepare(np.full((*shape, 3), (200, 30, 60), dtype=np.uint8))

    assert prepared.shape == (3, 32, 32)
    assert prepared[0].mean() > prepared[1].mean()


def test_many_threads_prepare_at_once_as_one_does(clip: TwoTowers) -> None:
    one_by_one = [clip.prepare(picture) for picture in pictures()]

    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(clip.prepare, pictures() * 8))

    for n, prepared in enumerate(at_once):
        np.testing.assert_array_equal(prepared, one_by_one[n % 4])


def test_a_checkpoint_that_lacks_weights_is_refused_instead_of_filled_with_random_numbers(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = tiny_clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(UnusableCheckpoint, match=r"visual_projection\.weight"):
        encoders.load_dual_encoder(Checkpoint(folder, "clip", "0" * 16), device="cpu", model_name="CLIP")


def test_an_image_model_cannot_stand_in_for_a_dual_encoder(resnet_folder: Path) -> None:
    with pytest.raises(UnusableCheckpoint, match="words"):
        encoders.load_dual_encoder(Checkpoint(resnet_folder, "resnet", "0" * 16), device="cpu", model_name="CLIP")


def test_a_projection_beside_the_weights_is_applied_to_the_pooled_output(resnet: PictureTower, tmp_path: Path) -> None:
    weight = projection(tiny_resnet(tmp_path / "resnet"), 16, 5)

    tower = encoders.load_image_tower(Checkpoint(tmp_path / "resnet", "mine", "2" * 16), device="cpu", model_name="mine")

    prepared = [tower.prepare(picture) for picture in pictures()]
    assert tower.space.dim == 5
    np.testing.assert_allclose(cosines(tower.embed(prepared), resnet.embed(prepared) @ weight.T), 1, atol=1e-5)


@pytest.mark.parametrize("content", [{"weight": np.zeros(3, np.float32)}, {"bias": np.zeros(3, np.float32)}])
def test_a_projection_that_is_no_linear_map_is_refused(content: dict[str, np.ndarray], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    folder = tiny_resnet(tmp_path / "resnet")
    save_file(content, folder / "projection.safetensors")

    with pytest.raises(UnusableCheckpoint, match="linear map"):
        encoders.load_image_tower(Checkpoint(folder, "mine", "2" * 16), device="cpu", model_name="mine")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_two_towers_of_their_own_meet_where_their_projections_lead(pooling: Literal["mean", "cls"], tmp_path: Path) -> None:
    import torch
    import transformers

    images, texts = tiny_resnet(tmp_path / "images"), tiny_bert(tmp_path / "words")
    projection(images, 16, 7)
    weight = projection(texts, 32, 7, seed=1)

    dual = encoders.load_two_towers(
        Checkpoint(images, "images", "3" * 16),
        Checkpoint(texts, "words", "4" * 16),
        pooling=pooling,
        device="cpu",
        model_name="Mine",
    )

    bert = transformers.BertModel.from_pretrained(texts, add_pooling_layer=False).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(texts)
    with torch.inference_mode():
        alone = [bert(**tokenizer([text], truncation=True, return_tensors="pt")).last_hidden_state[0] for text in TEXTS]
    expected = np.stack([(tokens.mean(0) if pooling == "mean" else tokens[0]).numpy() for tokens in alone]) @ weight.T
    assert (dual.space.text, dual.space.dim, dual.space.model_name) == (True, 7, "Mine")
    np.testing.assert_allclose(cosines(dual.embed_texts(TEXTS), expected), 1, atol=1e-5)
    assert dual.embed([dual.prepare(picture) for picture in pictures()]).shape == (4, 7)


def test_a_change_of_either_tower_is_another_space(tmp_path: Path) -> None:
    one, other, words = (Checkpoint(tmp_path, name, mark * 16) for name, mark in (("a", "1"), ("a", "2"), ("words", "3")))

    revisions = {one.joined_with(words), other.joined_with(words), one.joined_with(other), one.revision}

    assert len(revisions) == 4
    assert one.joined_with(words) == Checkpoint(tmp_path / "elsewhere", "b", "1" * 16).joined_with(words)


def test_two_towers_that_do_not_meet_are_refused(tmp_path: Path) -> None:
    images, texts = tiny_resnet(tmp_path / "images"), tiny_bert(tmp_path / "words")

    with pytest.raises(UnusableCheckpoint, match="16 numbers, words 32"):
        encoders.load_two_towers(
            Checkpoint(images, "images", "3" * 16),
            Checkpoint(texts, "words", "4" * 16),
            pooling="mean",
            device="cpu",
            model_name="x",
        )


def test_onnx_pixels_are_scaled_normalised_and_cut_about_the_centre(starter: onnx_encoder.OnnxDualEncoder) -> None:
    striped = np.zeros((64, 192, 3), dtype=np.uint8)
    striped[:, 64:128] = (255, 128, 0)

    prepared = starter.prepare(striped)

    np.testing.assert_allclose(prepared[:, 16, 16], [(1 - 0.5) / 0.25, (128 / 255 - 0.5) / 0.25, (0 - 0.5) / 0.25], atol=1e-5)
    assert prepared[0, :, 4:-4].min() == pytest.approx(2, abs=0.05)


def test_onnx_squashes_where_the_description_says_so(tmp_path: Path) -> None:
    squashing = onnx_encoder.load(tiny_onnx(tmp_path / "model", resize="squash"), model_name="Mine", threads=1)
    striped = np.zeros((64, 192, 3), dtype=np.uint8)
    striped[:, 64:128] = 255

    red = squashing.prepare(striped)[0, 16]

    assert red[0] == red[-1] == pytest.approx(-2)
    assert red[16] == pytest.approx(2)
    assert (squashing.space.model_name, squashing.space.collection) == ("Mine", "starter-01234567")


def test_onnx_graphs_of_another_dimension_than_described_are_refused(tmp_path: Path) -> None:
    folder = tiny_onnx(tmp_path / "model")
    description = (folder / "embedder.json").read_text().replace('"dim": 3', '"dim": 4')
    (folder / "embedder.json").write_text(description)

    with pytest.raises(ValueError, match="4 numbers"):
        onnx_encoder.load(folder, model_name=None, threads=1)
