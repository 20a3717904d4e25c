from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_service.backbones import load_image_processor, load_tokenizer
from model_service.encoders import TokenReader, prepared
from model_service.preparation import TOKENIZER, Wording, Words, told_of
from tests.unit.model_service.checkpoints import tiny_clip

SIZES = ((48, 64), (64, 43), (100, 900), (31, 33), (1, 7), (300, 200))


def _clip(transformers: Any) -> Any:
    return transformers.CLIPImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 30})


def _siglip(transformers: Any) -> Any:
    return transformers.SiglipImageProcessor(size={"height": 32, "width": 40})


def _vit(transformers: Any) -> Any:
    return transformers.ViTImageProcessor(size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.25] * 3)


def _convnext(transformers: Any) -> Any:
    return transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.9)


@pytest.mark.parametrize("make", [_clip, _siglip, _vit, _convnext])
def test_numbers_make_of_a_picture_what_the_processor_makes_of_it(make: Callable[[Any], Any], tmp_path: Path) -> None:
    import transformers

    transformers.ViTModel(
        transformers.ViTConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    ).config.save_pretrained(tmp_path)
    make(transformers).save_pretrained(tmp_path)
    processor = load_image_processor(tmp_path)
    told = told_of(processor)
    rng = np.random.default_rng(0)

    assert told is not None
    for size in SIZES:
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        np.testing.assert_allclose(told(picture), prepared(processor, picture), atol=1e-5)


@pytest.mark.parametrize("to_longest", [True, False])
def test_a_tokenizer_alone_reads_as_it_does_inside_transformers(to_longest: bool, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_clip(tmp_path / "clip"))
    reader = TokenReader(tokenizer, 12, to_longest)
    (tmp_path / TOKENIZER).write_text(tokenizer.backend_tokenizer.to_str())
    wording = Wording(
        names=("input_ids", "attention_mask"),
        max_tokens=12,
        pad_id=tokenizer.pad_token_id,
        pad_token=tokenizer.pad_token,
        to_longest=to_longest,
    )

    words = Words.load(tmp_path, wording)

    for texts in (["a dog"], ["a", "the dog on the grass"], ["", "a cat " * 20]):
        read, expected = words(texts), reader(texts)
        for name in wording.names:
            np.testing.assert_array_equal(read[name], expected[name])
