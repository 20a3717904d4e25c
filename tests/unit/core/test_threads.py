from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.threads import ThreadBudget, limit_libraries, usable_cores


@pytest.mark.parametrize(("cores", "passes", "decoding"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (8, 2, 4), (16, 4, 8), (64, 16, 8)])
def test_passes_share_every_core_and_decoders_have_half_of_them_but_never_none(cores: int, passes: int, decoding: int) -> None:
    assert ThreadBudget.of(cores) == ThreadBudget(inference=cores, passes=passes, decoding=decoding)


def test_a_containers_quota_bounds_the_cores_and_may_be_a_part_of_one(tmp_path: Path) -> None:
    quota = tmp_path / "cpu.max"

    quota.write_text("20000 100000\n")
    assert usable_cores(quota) == 1

    quota.write_text("100000000 100000\n")
    everything = usable_cores(quota)
    quota.write_text("max 100000\n")
    assert usable_cores(quota) == everything == usable_cores(tmp_path / "absent") >= 1


def test_libraries_are_bounded_but_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "7")

    limit_libraries(3)

    assert [os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "RAYON", "MKL")] == ["3", "3", "7"]
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
