"""Questions in words, as long as captions are."""

from __future__ import annotations

import numpy as np

WORDS = (
    "red",
    "old",
    "small",
    "dog",
    "street",
    "beach",
    "child",
    "night",
    "bicycle",
    "mountain",
    "kitchen",
    "snow",
    "two",
    "running",
)
"""What the tokenizer of `benchmarks.checkpoints` tells apart: questions of other words are all one to it."""


def questions(count: int, *, seed: int = 1) -> list[str]:
    """Of six words each, no two alike; those of another seed, below 14, are others."""
    random = np.random.default_rng(seed)
    drawn = dict.fromkeys(f"{' '.join(random.choice(WORDS, 5))} {WORDS[seed]}" for _ in range(2 * count))
    return list(drawn)[:count]
