"""Pictures made to do harm end decoded or refused, in bounded memory and time, one by one in a process that is measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from core.decode import DecodeLimits, sniff
from core.decoding import DecodingProcesses
from core.errors import ImageRejected, Reason
from core.images.kinds import content_type
from tests import hostile
from tests.faulty_decoding import png

LIMITS = DecodeLimits()
MEBIBYTE = 2**20
LIGHT_BYTES = 256 * MEBIBYTE
"""What no picture of a small size may come near to, whatever it tells of itself; a process has 40 MiB without one."""

Make = Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`None` for a picture, and the peak of the process's memory since it began."""

    reason: Reason | None
    peak_bytes: int
    cpu_s: float


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecodingProcesses]:
    with DecodingProcesses(LIMITS) as opened:
        yield opened


def _tried(decoder: DecodingProcesses, name: str, image: bytes) -> Outcome:
    decoder.decode(png())
    (pid,) = decoder.pids
    before = _cpu_s(pid)
    reason = None
    try:
        decoder.decode(image, min_side=224, max_side=1600)
    except ImageRejected as rejected:
        reason = rejected.reason
    died = decoder.pids != {pid}
    outcome = Outcome(reason, 0, LIMITS.max_seconds) if died else Outcome(reason, _peak_bytes(pid), _cpu_s(pid) - before)
    told = reason or "decoded"
    print(f"| {name} | {len(image):,} bytes | {told} | {outcome.peak_bytes / MEBIBYTE:.0f} MiB | {outcome.cpu_s:.2f} s |")
    return outcome


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _peak_bytes(pid: int) -> int:
    told = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in told if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", hostile.TOO_LARGE)
def test_a_picture_larger_than_allowed_is_refused_by_its_header(decoder: DecodingProcesses, name: str) -> None:
    outcome = _tried(decoder, name, hostile.TOO_LARGE[name]())
    assert outcome.reason is not None
    assert outcome.peak_bytes < LIGHT_BYTES
    assert outcome.cpu_s < 1


@pytest.mark.parametrize("name", hostile.ZERO_SIZED)
def test_a_picture_without_pixels_is_none(decoder: DecodingProcesses, name: str) -> None:
    assert _tried(decoder, name, hostile.ZERO_SIZED[name]()).reason in {Reason.CORRUPT, Reason.NOT_AN_IMAGE, Reason.TRUNCATED}


@pytest.mark.parametrize("name", hostile.EXIF_LIES)
def test_a_picture_whose_exif_lies_is_a_picture(decoder: DecodingProcesses, name: str) -> None:
    image = hostile.EXIF_LIES[name]()
    outcome = _tried(decoder, name, image)
    assert outcome.reason is None
    assert outcome.peak_bytes < LIGHT_BYTES
    assert outcome.cpu_s < 1
    decoded = decoder.decode(image)
    assert (decoded.facts.width, decoded.facts.height, decoded.facts.location) == (64, 64, None)
    assert decoder.location(image) is None


HEAVY = {"jpeg of thirty-four scans of 144 megapixels"}


@pytest.mark.parametrize(
    "name", [name if name not in HEAVY else pytest.param(name, marks=pytest.mark.long) for name in hostile.COSTLY]
)
def test_what_costs_much_is_bounded(decoder: DecodingProcesses, name: str) -> None:
    outcome = _tried(decoder, name, hostile.COSTLY[name]())
    assert outcome.reason in {None, Reason.CORRUPT, Reason.TRUNCATED, Reason.TOO_MANY_PIXELS, Reason.TOO_SLOW}
    assert outcome.peak_bytes < (LIGHT_BYTES if name not in HEAVY else LIMITS.max_memory_bytes)
    assert outcome.cpu_s < LIMITS.max_seconds / 2


SHORT = {"png of 144 megapixels, 1 bit", "jpeg of 65500 columns", "jpeg 2000 of a hundred million tiles"}


@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.long) for name in hostile.JUST_WITHIN]
)
def test_what_is_just_allowed_is_decoded_or_refused_within_the_bound_on_memory(name: str) -> None:
    image = hostile.JUST_WITHIN[name]()
    with DecodingProcesses(LIMITS) as alone:
        started = time.monotonic()
        try:
            decoded = alone.decode(image, min_side=224, max_side=1600)
        except ImageRejected as rejected:
            assert rejected.reason in {Reason.TOO_MANY_PIXELS, Reason.CORRUPT, Reason.TRUNCATED}  # noqa: PT017 - or it is decoded
        else:
            assert max(decoded.pixels.shape) <= 1600
        print(f"{name}: {time.monotonic() - started:.1f} s")
        for pid in alone.pids:
            assert _peak_bytes(pid) < LIMITS.max_memory_bytes + LIGHT_BYTES


@pytest.mark.parametrize("name", hostile.SVGS)
def test_an_svg_is_refused_however_it_begins(decoder: DecodingProcesses, name: str) -> None:
    svg = hostile.SVGS[name]
    assert _tried(decoder, f"svg {name}", svg).reason in {Reason.UNSUPPORTED_FORMAT, Reason.NOT_AN_IMAGE}
    assert not sniff(svg[:32])
    assert content_type(svg[:32]) == "application/octet-stream"


@pytest.mark.parametrize("name", hostile.POLYGLOTS)
def test_what_is_two_things_at_once_is_served_as_a_picture_or_as_nothing_that_runs(decoder: DecodingProcesses, name: str) -> None:
    image = hostile.POLYGLOTS[name]()
    assert _tried(decoder, name, image).reason in {None, Reason.CORRUPT, Reason.NOT_AN_IMAGE, Reason.UNSUPPORTED_FORMAT}
    served = content_type(image[:32])
    assert served == "application/octet-stream" or (served.startswith("image/") and "svg" not in served)


def test_a_thumbnail_holds_nothing_of_what_the_picture_hid() -> None:
    hidden = hostile.POLYGLOTS["jpeg and php"]()
    with DecodingProcesses(LIMITS) as decoder:
        assert b"<?php" not in decoder.thumbnail(hidden, 128)
