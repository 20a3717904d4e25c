from __future__ import annotations

from pathlib import Path

from benchmarks.rescan import rows


def test_a_rescan_is_of_files_that_the_ledger_knows_and_far_within_its_goal(tmp_path: Path) -> None:
    seconds, memory = rows(tmp_path, files=500, times=2)
    assert len([path for path in (tmp_path / "images").rglob("*") if path.is_file()]) == 500
    assert 0 < seconds.value < 2
    assert memory.met
