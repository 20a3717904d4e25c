"""Masks survive the wire, and a mask that lies about its size is refused before C code reads it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from core import masks
from core.schemas import MaskRle

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(arrays.arrays(np.bool_, SHAPES))
def test_a_mask_is_the_same_after_the_round_trip(mask: masks.Mask) -> None:
    rle = masks.encode(mask)
    assert rle.size == mask.shape
    assert np.array_equal(masks.decode(rle), mask)


def test_the_encoding_is_cocos() -> None:
    """Column-major runs that begin with the background: 2 off, 2 on, 2 off."""
    mask = np.array([[0, 1, 0], [0, 1, 0]], dtype=np.bool_)
    assert masks.encode(mask) == MaskRle(size=(2, 3), counts="222")


@given(arrays.arrays(np.bool_, SHAPES), st.integers(1, 60), st.integers(1, 60))
def test_runs_that_do_not_add_up_to_the_size_are_refused(mask: masks.Mask, height: int, width: int) -> None:
    rle = MaskRle(size=(height, width), counts=masks.encode(mask).counts)
    if height * width == mask.size:
        assert masks.decode(rle).shape == (height, width)
    else:
        with pytest.raises(ValueError, match="add up"):
            masks.decode(rle)


@given(st.text(st.characters(max_codepoint=400), max_size=30), SHAPES)
def test_no_text_crashes_the_decoder(counts: str, size: tuple[int, int]) -> None:
    try:
        decoded = masks.decode(MaskRle(size=size, counts=counts))
    except ValueError:
        return
    assert decoded.shape == size


@pytest.mark.parametrize("size", [(0, 4), (4, 0), (-2, -2)])
def test_a_mask_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="add up"):
        masks.decode(MaskRle(size=size, counts="4"))
