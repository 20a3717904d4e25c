"""Texts as token ids, the prompts of class names, and a vocabulary wider than any caption."""

import random
import re
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

MAX_TOKENS = 64
PROMPTS = (
    "{}",
    "{}",
    "a {}",
    "a photo of a {}",
    "a picture of a {}",
    "a close up of a {}",
    "a photo of the {}",
    "one {} in the picture",
    "there is a {}",
    "a {} outdoors",
)


class Words:
    """MiniLM's tokenizer, padded to the longest of a batch."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    def __call__(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Returns token ids and attention mask, int64 (n, longest)."""
        found = self.tokenizer.encode_batch(texts)
        return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found])


def prompt(name: str, chance: random.Random) -> str:
    return chance.choice(PROMPTS).format(name)


def synonym(names: list[str], chance: random.Random) -> str:
    """The commonest name half the time, any of its synonyms otherwise."""
    return names[0] if chance.random() < 0.5 else chance.choice(names)


def vocabulary(folder: Path) -> list[str]:
    """The whole words of MiniLM's vocabulary: what people may type beyond captions and class names."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [word for word in words if re.fullmatch(r"[a-z]{4,}", word)]
