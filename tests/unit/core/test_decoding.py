"""Bytes that crash, hang or bloat a decoder cost one process and one picture, and nothing else."""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image
from structlog.testing import capture_logs

from core.decode import DecodeLimits
from core.decoding import Decoder, DecodingProcesses, LocalDecoder, decoder_of
from core.errors import ImageRejected, Reason, Unavailable
from core.settings import PictureSettings
from tests.faulty_decoding import FAULTS, faulty, png
from tests.unit.core.test_decode import FORMATS, MODES

LIMITS = DecodeLimits(max_pixels=10_000_000, max_seconds=0.5, max_memory_bytes=2**28)
FAULTY = "tests.faulty_decoding"


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecodingProcesses]:
    with DecodingProcesses(DecodeLimits()) as opened:
        yield opened


@pytest.fixture(scope="module")
def weak() -> Iterator[DecodingProcesses]:
    """One whose decoders have faults."""
    with DecodingProcesses(LIMITS, module=FAULTY) as opened:
        yield opened


def _rejection(decoder: Decoder, image: bytes) -> Reason:
    with pytest.raises(ImageRejected) as rejected:
        decoder.decode(image)
    return rejected.value.reason


# --- the same as in this process -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*FORMATS, *MODES])
def test_a_process_decodes_what_this_one_does_to_the_same_pixels_and_facts(decoder: DecodingProcesses, name: str) -> None:
    image = {**FORMATS, **MODES}[name][0]()
    here = LocalDecoder(DecodeLimits())
    for sides in ({}, {"min_side": 20}, {"max_side": 30}):
        there, wanted = decoder.decode(image, **sides), here.decode(image, **sides)
        assert there.facts == wanted.facts
        assert np.array_equal(there.pixels, wanted.pixels)
        assert there.pixels.flags.writeable
    assert decoder.facts(image, min_side=8) == here.facts(image, min_side=8)
    assert decoder.thumbnail(image, 32) == here.thumbnail(image, 32)
    assert decoder.location(image) == here.location(image)


def test_what_is_told_beside_the_pixels_comes_across(decoder: DecodingProcesses) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:06 07:08:09"
    exif.get_ifd(0x8825).update({1: "S", 2: (33.0, 51.0, 25.2), 3: "E", 4: (151.0, 12.0, 54.0)})
    exif[0x0112] = 6
    written = io.BytesIO()
    Image.new("RGB", (30, 20)).save(written, "JPEG", exif=exif)
    facts = decoder.decode(written.getvalue()).facts
    assert facts == LocalDecoder(DecodeLimits()).decode(written.getvalue()).facts
    assert (facts.width, facts.height, facts.location) == (20, 30, (-33.857, 151.215))
    assert facts.taken_at is not None
    assert decoder.location(written.getvalue()) == facts.location


@pytest.mark.parametrize(
    ("image", "reason"), [(b"", Reason.EMPTY_FILE), (b"a letter", Reason.NOT_AN_IMAGE), (png()[:60], Reason.TRUNCATED)]
)
def test_a_rejection_comes_across_with_its_reason(decoder: DecodingProcesses, image: bytes, reason: Reason) -> None:
    assert _rejection(decoder, image) is reason
    assert _rejection(LocalDecoder(DecodeLimits()), image) is reason
    assert decoder.location(image) is None


def test_the_byte_limit_holds_before_anything_is_handed_over() -> None:
    with DecodingProcesses(DecodeLimits(max_bytes=100)) as small:
        assert _rejection(small, bytes(101)) is Reason.TOO_MANY_BYTES
        assert not small.pids


def test_a_large_picture_leaves_no_memory_behind(decoder: DecodingProcesses) -> None:
    large = png(side=3000)
    assert decoder.decode(large).pixels.shape == (3000, 3000, 3)
    before = _shared_bytes()
    for _ in range(3):
        decoder.decode(large)
    assert _shared_bytes() <= before + 2**20
    assert _shared_bytes() < 2**24


def _shared_bytes() -> int:
    return psutil.Process().memory_info().shared - _file_bytes()


def _file_bytes() -> int:
    """Shared with the disk's cache, not with a child."""
    told = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in told.splitlines() if line.startswith("RssFile"))


# --- faults ------------------------------------------------------------------------------------------------------------------

SLOW = {"spin", "sleep", "stop", "hang up"}
CRASHES = set(FAULTS) - SLOW - {"eat", "reach out"}


@pytest.mark.parametrize("fault", sorted(CRASHES))
def test_a_picture_that_ends_its_process_is_refused_for_that_and_the_next_one_is_decoded(
    weak: DecodingProcesses, fault: str
) -> None:
    with capture_logs() as logs:
        assert _rejection(weak, faulty(png(), fault)) is Reason.CRASHES_DECODER
    assert weak.decode(png("blue")).pixels[0, 0].tolist() == [0, 0, 255]
    deaths = [event for event in logs if event["event"] == "decoder_died"]
    assert len(deaths) == (6 if fault == "kill" else 2), "what is killed from outside gets more chances"


def test_each_death_is_told_to_who_counts_them() -> None:
    deaths: list[None] = []
    with DecodingProcesses(LIMITS, module=FAULTY, on_death=lambda: deaths.append(None)) as counted:
        counted.decode(png())
        assert _rejection(counted, b"no picture at all") is Reason.NOT_AN_IMAGE
        assert deaths == []
        assert _rejection(counted, faulty(png(), min(CRASHES - {"kill"}))) is Reason.CRASHES_DECODER
    assert len(deaths) == 2


@pytest.mark.parametrize("fault", sorted(SLOW))
def test_a_picture_that_takes_too_long_is_refused_in_time(weak: DecodingProcesses, fault: str) -> None:
    started = time.monotonic()
    assert _rejection(weak, faulty(png(), fault)) is Reason.TOO_SLOW
    assert time.monotonic() - started < 12
    assert weak.decode(png("blue")).facts.width == 40


def test_a_picture_that_eats_memory_is_refused_at_the_bound() -> None:
    with DecodingProcesses(replace(LIMITS, max_seconds=10.0), module=FAULTY) as patient:
        assert _rejection(patient, faulty(png(), "eat")) is Reason.TOO_MANY_PIXELS
        (pid,) = patient.pids
        peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        assert LIMITS.max_memory_bytes // 2 < int(peak.split()[1]) * 1024 < LIMITS.max_memory_bytes + 2**27
        assert patient.decode(png()).facts.width == 40


def test_a_decoding_process_opens_no_file_and_no_socket_and_cannot_shrink_what_is_shared(weak: DecodingProcesses) -> None:
    assert weak.decode(faulty(png(), "reach out")).facts.width == 40  # it aborts if one of them is allowed


def test_no_secret_goes_to_a_decoding_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "hush-hush")
    monkeypatch.setenv("API_KEYS", "hush-hush")
    with DecodingProcesses(LIMITS) as decoder:
        decoder.decode(png())
        for pid in decoder.pids:
            assert b"hush-hush" not in Path(f"/proc/{pid}/environ").read_bytes()


def test_poison_among_good_pictures_costs_none_of_them() -> None:
    seed = int(os.environ.get("DECODE_SEED", str(random.randrange(2**32))))
    print(f"DECODE_SEED={seed}")
    rng = random.Random(seed)
    poisons = sorted(CRASHES | {"spin"})
    pictures = [(faulty(png(), rng.choice(poisons)), True) if rng.random() < 0.1 else (png(side=n + 1), False) for n in range(40)]

    def outcome(picture: bytes) -> Reason | tuple[int, ...]:
        try:
            return decoder.decode(picture).pixels.shape
        except ImageRejected as rejected:
            return rejected.reason

    with DecodingProcesses(LIMITS, module=FAULTY) as decoder, ThreadPoolExecutor(4) as threads:
        outcomes = list(threads.map(outcome, [picture for picture, _ in pictures]))
        assert len(decoder.pids) <= 4
    for n, (found, (_, poisoned)) in enumerate(zip(outcomes, pictures, strict=True)):
        if poisoned:
            assert found in {Reason.CRASHES_DECODER, Reason.TOO_SLOW}, n
        else:
            assert found == (n + 1, n + 1, 3), n


# --- kill -9 -------------------------------------------------------------------------------------------------------------------


@dataclass
class Killer:
    """Kills whatever process decodes, at random instants, for as long as the context lasts: once a round of pictures, however slow those are."""

    decoder: DecodingProcesses
    rng: random.Random
    kills: int = 0
    rounds: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Killer:
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.rounds.release()
        self.thread.join()

    def _run(self) -> None:
        while not self.over.wait(self.rng.uniform(0.0, 0.3)):
            for pid in self.decoder.pids:
                os.kill(pid, signal.SIGKILL)
                self.kills += 1
            self.rounds.acquire()


@pytest.mark.parametrize("kills", [6, pytest.param(150, marks=pytest.mark.long)])
def test_kill_9_of_decoding_processes_costs_no_picture(kills: int) -> None:
    seed = int(os.environ.get("DECODE_SEED", str(random.randrange(2**32))))
    print(f"DECODE_SEED={seed}")
    pictures = [png(side=side) for side in (10, 500, 1500)]
    decoded, before = 0, _children()
    decoder, threads = DecodingProcesses(DecodeLimits()), ThreadPoolExecutor(3)
    with threads, decoder, Killer(decoder, random.Random(seed)) as killer:
        while killer.kills < kills:
            for made, side in zip(threads.map(decoder.decode, pictures), (10, 500, 1500), strict=True):
                assert made.pixels.shape == (side, side, 3)
                decoded += 1
            killer.rounds.release()
    assert decoded >= kills
    assert not decoder.pids
    assert _children() <= before


def _children() -> set[psutil.Process]:
    """This process's own, zombies among them."""
    return set(psutil.Process().children())


_PARENT = """
import sys, threading
from core.decode import DecodeLimits
from core.decoding import DecodingProcesses
from tests.faulty_decoding import faulty, png
limits = DecodeLimits(max_pixels=10**7, max_seconds=2.0)
decoder = DecodingProcesses(limits, module="tests.faulty_decoding")
decoder.decode(png())
threading.Thread(target=lambda: decoder.decode(faulty(png(), sys.argv[1]))).start()
decoder.decode(png())
while len(decoder.pids) < 2:
    decoder.decode(png())
print(*decoder.pids, flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("fault", ["spin", "sleep"])
def test_nothing_is_left_of_a_parent_that_is_killed_even_of_a_decoder_that_hangs(fault: str) -> None:
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, fault], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent, parent.stdout as said:
        children = [psutil.Process(int(pid)) for pid in said.readline().split()]
        assert len(children) == 2
        parent.kill()
        parent.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]  # of an init that reaps late


# --- beginning and end ------------------------------------------------------------------------------------------------------------


def test_no_process_is_started_before_there_is_a_picture() -> None:
    with DecodingProcesses(LIMITS) as decoder:
        assert not decoder.pids
        decoder.decode(png())
        assert len(decoder.pids) == 1


def test_one_thread_has_one_process_however_many_pictures_it_has(decoder: DecodingProcesses) -> None:
    for _ in range(20):
        decoder.decode(png())
    assert len(decoder.pids) == 1


def test_processes_that_have_nothing_to_do_are_ended() -> None:
    with DecodingProcesses(LIMITS, idle_s=0.2) as decoder:
        decoder.decode(png())
        (pid,) = decoder.pids
        _until(lambda: not decoder.pids)
        assert not psutil.pid_exists(pid), "it was reaped"
        assert decoder.decode(png()).facts.width == 40


def test_one_that_took_much_memory_is_replaced() -> None:
    with DecodingProcesses(DecodeLimits(max_memory_bytes=2**31)) as decoder:
        written = io.BytesIO()
        Image.new("RGB", (12_200, 12_200)).save(written, "PNG")
        decoder.decode(written.getvalue(), max_side=100)
        assert not decoder.pids
        assert decoder.decode(png()).facts.width == 40


def test_what_the_parent_holds_is_not_held_against_a_process() -> None:
    held = np.ones(2**29 + 2**26, dtype=np.uint8)  # a service with its models
    with DecodingProcesses(DecodeLimits()) as decoder:
        decoder.decode(png())
        first = decoder.pids
        decoder.decode(png())
        assert decoder.pids == first
    assert held[0] == 1


def test_whoever_waits_for_a_picture_is_released_when_it_is_closed() -> None:
    with DecodingProcesses(replace(LIMITS, max_seconds=60.0), module=FAULTY) as decoder, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(decoder.decode, faulty(png(), "sleep"))
        _until(lambda: decoder.pids)
        started = time.monotonic()
        decoder.__exit__(None, None, None)
        assert isinstance(waiting.exception(5), Unavailable)
        assert time.monotonic() - started < 2
    with pytest.raises(Unavailable):
        decoder.decode(png())
    assert not decoder.pids


def test_where_no_process_can_be_started_the_picture_is_not_to_blame() -> None:
    with DecodingProcesses(LIMITS, module="core.no_such_module") as decoder, pytest.raises(Unavailable):
        decoder.decode(png())
    assert not decoder.pids


def test_where_there_is_no_room_for_the_shared_memory_no_descriptor_stays() -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with DecodingProcesses(LIMITS) as decoder:
        before = len(list(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, limits[1]))
        try:
            for _ in range(3):
                with pytest.raises(Unavailable):
                    decoder.decode(png())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        assert decoder.decode(png()).facts.width == 40


def test_where_no_thread_can_be_started_pictures_are_decoded_and_processes_end_with_the_rest() -> None:
    with DecodingProcesses(LIMITS, idle_s=0.2) as decoder:
        before = threading.stack_size(2**46)  # more than there are addresses
        try:
            assert decoder.decode(png()).facts.width == 40
        finally:
            threading.stack_size(before)
        assert len(decoder.pids) == 1
    assert not decoder.pids


def test_decoding_in_the_service_itself_is_a_setting() -> None:
    assert isinstance(decoder_of(PictureSettings()), DecodingProcesses)
    assert isinstance(decoder_of(PictureSettings(decode_isolation=False)), LocalDecoder)


def _until(done: object, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not done():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)
