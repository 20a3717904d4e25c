"""The clock jumps a day ahead, or back: nothing waits for it to come round again."""

from __future__ import annotations

import random
import time

import pytest

from tests.e2e.product import wait_for
from tests.faults.rig import Rig, some_picture

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_DAY_S = 86_400.0


@pytest.mark.parametrize(
    "jump_s", [pytest.param(2 * _DAY_S, marks=pytest.mark.long, id="ahead"), pytest.param(-2 * _DAY_S, id="back")]
)
def test_work_deletions_and_retries_go_on_across_a_jump(rig: Rig, rng: random.Random, jump_s: float) -> None:
    rig.environment |= {"INGEST_CONCURRENCY": "1", "ORPHAN_GRACE_S": "1", "LEASE_S": "3"}
    for number in range(4):
        rig.add(f"{number}.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    before = rig.search("anything")["matches"]

    rig.arm("picture_unsent", "hold")
    rig.add("under way.jpg", some_picture(rng))
    rig.wait_held("picture_unsent")
    (rig.images / "0.jpg").unlink()  # its grace begins by one clock and ends by another
    wait_for("the deletion seen", lambda: rig.http.get(f"/api/v1/images/{_id(before, '0.jpg')}").status_code == 404, timeout_s=10)
    rig.set_clock(jump_s)
    rig.add("later.jpg", some_picture(rng))
    rig.disarm("picture_unsent")
    rig.agree(timeout_s=25)
    assert rig.status()["images"]["indexed"] == 5

    rig.kill_model()  # attempts that went wrong are put off by the new clock
    rig.add("after a crash.jpg", some_picture(rng))
    rig.set_clock(-jump_s)
    rig.add("last.jpg", some_picture(rng))
    rig.agree(timeout_s=25)
    assert rig.status()["images"]["indexed"] == 7


def test_ratings_across_a_jump_are_kept_or_refused_with_a_word_and_never_a_fault(rig: Rig, rng: random.Random) -> None:
    rig.add("a.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    answers = {}
    for jump_s in (0.0, 3600.0, 3 * _DAY_S, -3600.0):
        rig.set_clock(0.0)
        token = rig.search(f"asked before {jump_s}")["matches"][0]["jwt"]
        rig.set_clock(jump_s)
        time.sleep(0.1)  # five times as long as the processes believe what they read of it
        answers[jump_s] = rig.http.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": token}).status_code
        anew = rig.search(f"asked after {jump_s}")["matches"][0]["jwt"]
        assert rig.http.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": anew}).status_code == 201
    assert (answers[0.0], answers[3600.0], answers[3 * _DAY_S]) == (201, 201, 401)
    assert answers[-3600.0] in {201, 401}
    assert _ids_unique(rig)


def _ids_unique(rig: Rig) -> bool:
    lines = rig.http.get("/api/v1/feedback").text.splitlines()
    return len(lines) == len(set(lines)) > 0


def _id(matches: list[dict[str, str]], name: str) -> str:
    return next(match["image_id"] for match in matches if match["image_name"] == name)
