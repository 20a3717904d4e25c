"""Damaged pictures of every format, each in a process that could die: a picture or a refusal, in time, and never anything else."""

from __future__ import annotations

import io
import json
import os
import random
import struct
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from core.decode import DecodeLimits
from core.decoding import DecodingProcesses
from core.errors import ImageRejected
from tests import hostile
from tests.unit.core.test_decode import FORMATS, MODES

LIMITS = DecodeLimits(max_pixels=4_000_000, max_seconds=10.0, max_memory_bytes=2**29)
LONGEST_S = 4.0
"""A picture may take no longer, on a machine that has other things to do as well."""

SEEDS = {name: make() for name, (make, _) in FORMATS.items()} | {name: make() for name, (make, *_) in MODES.items()}
_BORDERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000, 0x01000000)
"""Numbers at which something changes its sign or its length."""


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecodingProcesses]:
    with DecodingProcesses(LIMITS) as opened:
        yield opened


def _tried(decoder: DecodingProcesses, image: bytes) -> str:
    """What became of it. Whatever is raised but a refusal is the test's failure."""
    started = time.monotonic()
    try:
        decoded = decoder.decode(image, min_side=20, max_side=200)
    except ImageRejected as rejected:
        outcome = rejected.reason.value
    else:
        assert decoded.pixels.dtype == np.uint8
        assert decoded.pixels.ndim == 3
        assert 1 <= decoded.pixels.shape[0] <= 200
        assert 1 <= decoded.pixels.shape[1] <= 200
        assert decoded.facts.width * decoded.facts.height <= LIMITS.max_pixels
        outcome = "decoded"
    assert time.monotonic() - started < LONGEST_S
    return outcome


def _seed() -> int:
    seed = int(os.environ.get("FUZZ_SEED", str(random.randrange(2**32))))
    print(f"FUZZ_SEED={seed}")
    return seed


@pytest.mark.parametrize("name", FORMATS)
def test_every_beginning_of_a_small_file_is_a_picture_or_refused(decoder: DecodingProcesses, name: str) -> None:
    image = FORMATS[name][0]()
    ends = [*range(1, min(len(image), 120)), *range(120, len(image), max(1, len(image) // 60))]
    print(name, Counter(_tried(decoder, image[:end]) for end in ends))


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", [*FORMATS, *MODES])
def test_every_beginning_of_a_file_at_every_byte(decoder: DecodingProcesses, name: str) -> None:
    print(name, Counter(_tried(decoder, SEEDS[name][:end]) for end in range(1, len(SEEDS[name]))))


def _damaged(rng: random.Random, image: bytes, other: bytes) -> bytes:
    """One to four changes, of the kind that parsers mistake: numbers at borders, parts twice, parts away, parts of another file."""
    damaged = image
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged)) if rng.random() < 0.5 else rng.randrange(min(len(damaged), 160))
        length, start = rng.randint(1, 64), rng.randrange(len(other))
        before, part, after = damaged[:at], damaged[at : at + length], damaged[at + length :]
        changed = (
            before + bytes([part[0] ^ 1 << rng.randrange(8)]) + part[1:] + after,
            before + (number := _border(rng)) + damaged[at + len(number) :],
            before + rng.randbytes(length) + after,
            before + part * rng.randint(1, 40) + after,
            before + after,
            before + other[start : start + length] + after,
            before + other[start:],
        )
        damaged = rng.choice(changed) or b"\0"
    return damaged


def _border(rng: random.Random) -> bytes:
    order, width = rng.choice("<>"), rng.choice("HI")
    return struct.pack(order + width, rng.choice(_BORDERS) & (0xFFFF if width == "H" else 0xFFFFFFFF))


@pytest.mark.parametrize("count", [3_000, pytest.param(300_000, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_a_damaged_picture_of_any_format_is_a_picture_or_refused(decoder: DecodingProcesses, count: int) -> None:
    rng = random.Random(_seed())
    names = sorted(SEEDS)
    outcomes: Counter[str] = Counter()
    for _ in range(count):
        name, other = rng.choice(names), rng.choice(names)
        outcomes[_tried(decoder, _damaged(rng, SEEDS[name], SEEDS[other]))] += 1
    print(outcomes)
    assert outcomes["decoded"] > count // 20, "nearly all is refused at once: that finds nothing"
    assert sum(outcomes.values()) - outcomes["decoded"] > count // 20


@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=[pytest.mark.long, pytest.mark.timeout(3600)])])
def test_a_damaged_lie_is_a_picture_or_refused(decoder: DecodingProcesses, count: int) -> None:
    rng = random.Random(_seed())
    small = {**hostile.TOO_LARGE, **hostile.ZERO_SIZED, **hostile.EXIF_LIES, **hostile.POLYGLOTS}
    lies = [image for image in (make() for make in small.values()) if len(image) < 70_000]
    outcomes = Counter(_tried(decoder, _damaged(rng, rng.choice(lies), rng.choice(lies))) for _ in range(count))
    print(outcomes)
    assert len(outcomes) > 2


@pytest.mark.shared
@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(7200)])])
def test_a_damaged_file_of_a_real_corpus_is_a_picture_or_refused(decoder: DecodingProcesses, shared: Path, rounds: int) -> None:
    rng = random.Random(_seed())
    assert len(json.loads((shared / "data" / "nasty" / "index.json").read_text())) == 218
    with tarfile.open(fileobj=io.BytesIO((shared / "data" / "nasty" / "files.tar").read_bytes())) as tar:
        opened = [tar.extractfile(member) for member in tar if member.isfile() and 0 < member.size < 300_000]
        files = [file.read() for file in opened if file is not None]
    outcomes: Counter[str] = Counter()
    for _ in range(rounds):
        for file in files:
            outcomes[_tried(decoder, _damaged(rng, file, rng.choice(files)))] += 1
    print(outcomes)
    assert outcomes["decoded"] > 10 * rounds
