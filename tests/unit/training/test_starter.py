"""The shipped artefact, loaded as a stranger would: ONNX Runtime, the tokenizer file and the numbers in `embedder.json`."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer

FOLDER = Path(__file__).resolve().parents[3] / "model_service/starter"
Vectors = NDArray[np.float32]


class Starter:
    def __init__(self) -> None:
        self.description = json.loads((FOLDER / "embedder.json").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.image_session = ort.InferenceSession(str(FOLDER / self.description["image"]["file"]), options, providers=providers)
        self.text_session = ort.InferenceSession(str(FOLDER / self.description["text"]["file"]), options, providers=providers)
        self.tokenizer = Tokenizer.from_file(str(FOLDER / self.description["text"]["tokenizer"]))

    def images(self, pixels: Vectors) -> Vectors:
        found: Vectors = self.image_session.run(["embedding"], {"pixels": pixels})[0]
        return found

    def texts(self, texts: list[str]) -> Vectors:
        encoded = self.tokenizer.encode_batch([self.description["text"]["template"].format(text) for text in texts])
        ids = np.array([each.ids for each in encoded], np.int64)
        mask = np.array([each.attention_mask for each in encoded], np.int64)
        found: Vectors = self.text_session.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0]
        return found

    def prepared(self, jpeg: bytes) -> Vectors:
        """The photos of the shared folder are square already."""
        size = self.description["image"]["size"]
        with Image.open(io.BytesIO(jpeg)) as image:
            rgb = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255.0
        mean, std = np.float32(self.description["image"]["mean"]), np.float32(self.description["image"]["std"])
        return np.ascontiguousarray(((rgb - mean) / std).transpose(2, 0, 1))


@pytest.fixture(scope="module")
def starter() -> Starter:
    return Starter()


def test_the_artefact_stays_within_forty_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 40_000_000


@pytest.mark.parametrize("count", [1, 3])
def test_images_of_any_batch_give_unit_vectors_of_the_declared_dimension(starter: Starter, count: int) -> None:
    size = starter.description["image"]["size"]
    pixels = np.random.default_rng(5).uniform(-1, 1, (count, 3, size, size)).astype(np.float32)
    vectors = starter.images(pixels)
    assert vectors.shape == (count, starter.description["dim"])
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize("text", ["", "dog", "a dog runs through the snow " * 30, "Ein Hund läuft 雪"])
def test_any_text_gives_one_unit_vector_of_the_declared_dimension(starter: Starter, text: str) -> None:
    vectors = starter.texts([text])
    assert vectors.shape == (1, starter.description["dim"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-4)


def test_a_text_has_the_same_vector_alone_and_padded_beside_a_longer_one(starter: Starter) -> None:
    alone = starter.texts(["a red car"])
    beside = starter.texts(["a red car", "two children in bathing suits build a castle of sand near the water on a bright day"])
    assert float((alone @ beside[:1].T).item()) > 0.999


def test_words_lie_near_their_synonyms(starter: Starter) -> None:
    espresso, coffee, lorry = starter.texts(["espresso", "a cup of coffee", "a lorry on a motorway"])
    assert espresso @ coffee > espresso @ lorry


def test_captions_find_their_photos_among_two_hundred_unseen_ones(starter: Starter, shared: Path) -> None:
    folder = shared / "data/flickr8k"
    wanted = set(sorted((folder / "text/Flickr_8k.testImages.txt").read_text().split())[:200])
    captions: dict[str, str] = {}
    for line in (folder / "text/Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        key, caption = line.split("\t", 1)
        if key.endswith("#0"):
            captions[key.split("#")[0]] = caption
    photos: dict[str, Vectors] = {}
    for archive in sorted(folder.glob("images-*.tar")):
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name in wanted else None
                if content is not None:
                    photos[member.name] = starter.prepared(content.read())
    names = sorted(photos)
    images = np.concatenate(
        [starter.images(np.stack([photos[name] for name in names[at : at + 50]])) for at in range(0, len(names), 50)]
    )
    texts = starter.texts([captions[name] for name in names])
    sims = texts @ images.T
    ranks = (sims > np.diag(sims)[:, None]).sum(1)
    assert len(names) == 200
    assert (ranks < 10).mean() > 0.8
    assert (ranks < 1).mean() > 0.35
