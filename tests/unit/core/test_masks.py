from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from core.masks import Mask, decode, encode
from core.schemas import MaskRle

sides = st.integers(1, 40)
masks = hnp.arrays(np.bool_, st.tuples(sides, sides))


@given(masks)
def test_what_was_encoded_is_decoded_again(mask: Mask) -> None:
    decoded = decode(encode(mask))
    assert decoded.dtype == np.bool_
    assert decoded.shape == mask.shape
    assert (decoded == mask).all()


@given(masks)
def test_the_order_of_the_mask_in_memory_does_not_matter(mask: Mask) -> None:
    assert encode(np.asfortranarray(mask)) == encode(np.ascontiguousarray(mask)) == encode(mask[::-1][::-1])


@pytest.mark.parametrize("size", [(1, 1), (1, 640), (640, 1), (480, 640)])
@pytest.mark.parametrize("value", [True, False])
def test_a_mask_that_is_all_or_nothing_survives(size: tuple[int, int], value: bool) -> None:
    rle = encode(np.full(size, value))
    assert rle.size == size
    assert decode(rle).shape == size
    assert (decode(rle) == value).all()


def test_the_encoding_is_column_major_as_coco_has_it() -> None:
    mask = np.zeros((3, 4), np.bool_)
    mask[:, 1] = True
    assert encode(mask) == MaskRle(size=(3, 4), counts="336")


@given(masks, st.data())
def test_a_mutated_mask_is_decoded_or_refused_with_a_value_error(mask: Mask, data: st.DataObject) -> None:
    rle = encode(mask)
    at = data.draw(st.integers(0, len(rle.counts)))
    inserted = data.draw(st.text(st.characters(min_codepoint=1, max_codepoint=300), max_size=4))
    counts = rle.counts[:at] + inserted + rle.counts[at + data.draw(st.integers(0, 3)) :]
    _decoded_or_refused(MaskRle(size=rle.size, counts=counts))


@settings(max_examples=300)
@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=60), st.tuples(sides, sides))
def test_any_text_in_the_alphabet_is_decoded_or_refused_with_a_value_error(counts: str, size: tuple[int, int]) -> None:
    _decoded_or_refused(MaskRle(size=size, counts=counts))


@given(masks, st.tuples(st.integers(-3, 60), st.integers(-3, 60)))
def test_a_mask_of_another_size_is_refused(mask: Mask, size: tuple[int, int]) -> None:
    rle = encode(mask)
    if size[0] > 0 and size[0] * size[1] == mask.size:
        assert decode(MaskRle(size=size, counts=rle.counts)).shape == size
        return
    with pytest.raises(ValueError, match="don't add up"):
        decode(MaskRle(size=size, counts=rle.counts))


@pytest.mark.parametrize(
    ("size", "counts"),
    [
        ((4, 4), ""),
        ((0, 0), ""),
        ((-4, -4), "`0"),
        ((4, 4), "o" * 4),  # a number that never ends
        ((4, 4), "oooooooooooo0"),  # more bits than any number of the format has
        ((4, 4), "ooooooO"),
        ((4, 4), "d0L"),  # 20 and -4
        ((1, 1), "Q" + "P" * 20 + "0"),  # 1, with more leading zeros than C's shift has room for
        ((2**17, 2**17), "PPPPPP8PPPPPP8"),  # 2 x 2^33: adds up, to 16 GiB
        ((4, 4), "PPPPPPPP"),
        ((4, 4), "\x00"),
        ((4, 4), "\u00e9"),
        ((4, 4), "\U0001f600"),
        ((2**20, 2**20), "1"),
        ((4, 4), "@" * 100_000),
        ((1, 1), "0" * 100_000),
    ],
)
def test_counts_that_lie_are_refused(size: tuple[int, int], counts: str) -> None:
    with pytest.raises(ValueError, match="don't add up"):
        decode(MaskRle(size=size, counts=counts))


def _decoded_or_refused(rle: MaskRle) -> None:
    try:
        decoded = decode(rle)
    except ValueError:
        return
    assert decoded.shape == rle.size


def _slowly_decoded(rle: MaskRle) -> Mask:
    """COCO's compressed runs as its paper's code describes them, one bit at a time: 5 bits a character, the sixth says that more follow."""
    runs: list[int] = []
    at = 0
    while at < len(rle.counts):
        value = place = 0
        while True:
            code = ord(rle.counts[at]) - 48
            value += (code % 32) * 32**place
            at, place = at + 1, place + 1
            if code < 32:
                break
        if code % 32 >= 16:
            value -= 32**place
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
    flat = [n % 2 == 1 for n, run in enumerate(runs) for _ in range(run)]
    return np.array(flat, np.bool_).reshape(rle.size[::-1]).T


@settings(max_examples=300)
@given(masks)
def test_a_slow_reader_of_the_format_sees_the_same_mask(mask: Mask) -> None:
    rle = encode(mask)
    assert (_slowly_decoded(rle) == mask).all()
    assert (_slowly_decoded(rle) == decode(rle)).all()


@settings(max_examples=300)
@given(st.lists(st.integers(0, 2**12), min_size=1, max_size=30), st.integers(1, 64))
def test_runs_of_any_length_are_read_as_a_slow_reader_does(runs: list[int], height: int) -> None:
    total = sum(runs)
    width = -(-max(total, 1) // height)
    runs = [*runs, width * height - total]
    rle = MaskRle(size=(height, width), counts="".join(_written(runs)))
    assert (decode(rle) == _slowly_decoded(rle)).all()


def _written(runs: list[int]) -> Iterator[str]:
    for n, run in enumerate(runs):
        value = run - runs[n - 2] if n > 2 else run
        while True:
            low, value = value & 31, value >> 5
            more = value != (-1 if low & 16 else 0)
            yield chr(48 + low + 32 * more)
            if not more:
                break


@pytest.mark.parametrize("counts", ["0" * 2_000_000, "oooooo0" * 200_000, "P" * 2_000_000, "1" * 1_000_000])
def test_a_long_lie_is_refused_in_a_moment(counts: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="don't add up"):
        decode(MaskRle(size=(640, 640), counts=counts))
    assert time.process_time() - started < 3
