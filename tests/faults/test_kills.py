"""`kill -9` of each process, and of all, at random instants while everything is in use (real models: `tests.e2e.test_kills`)."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from tests.e2e.product import wait_for
from tests.faults.rig import Rig
from tests.faults.workload import Workload

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_VICTIMS = ("product", "models", "all", "while starting")


def test_kills_at_random_instants_lose_nothing(rig: Rig, rng: random.Random) -> None:
    _kill_again_and_again(rig, rng, rounds=4)


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_hundreds_of_kills_at_random_instants_lose_nothing(rig: Rig, rng: random.Random) -> None:
    _kill_again_and_again(rig, rng, rounds=int(os.environ.get("FAULT_ROUNDS", "300")))


def _kill_again_and_again(rig: Rig, rng: random.Random, *, rounds: int) -> None:
    """In long runs an index is always being built or taken over as well, and its builder dies with the product."""
    rig.environment["FAULTS_INDEX_FROM"] = "30"
    work = Workload(rig, rng)
    for _ in range(10):
        work.add()
    rig.start_and_wait()
    for number in range(rounds):
        victim = _VICTIMS[number % len(_VICTIMS)]
        until = time.monotonic() + rng.uniform(0.05, 1.5)
        steps = []
        while time.monotonic() < until:
            steps.append(work.step())
        print(f"round {number}: {victim} after {' '.join(steps)}")
        _kill(rig, victim, rng)
        rig.agree()
        assert work.promises.broken(rig) == []
        assert not [event for event in rig.log_events() if event["event"] == "state_repaired"], "a kill damages nothing"


def _kill(rig: Rig, victim: str, rng: random.Random) -> None:
    assert rig.process is not None
    if victim == "models":
        started = sum(event["event"] == "model_service_started" for event in rig.log_events())
        rig.kill_model()
        wait_for(
            "another model service",
            lambda: sum(event["event"] == "model_service_started" for event in rig.log_events()) > started,
            timeout_s=40,
        )
        return
    if victim == "all":
        rig.kill_model()
    os.kill(rig.process.pid, signal.SIGKILL)
    rig.process.wait(10)
    if victim == "while starting":
        rig.start()
        time.sleep(rng.uniform(0.05, 1.2))
        rig.kill()
    rig.start_and_wait()
