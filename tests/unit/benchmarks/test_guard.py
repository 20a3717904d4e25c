"""The table of the benchmarks, and what is called a regression."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.guard import regressions
from benchmarks.rows import Row


def row(value: float, *, better: str = "higher", unit: str = "x", name: str = "ingestion over naive") -> Row:
    return Row(name, value, 5.0, better, unit)  # type: ignore[arg-type]


@pytest.fixture
def before(tmp_path: Path) -> Path:
    kept = [row(8.0), row(1.2, better="lower", name="search over its parts"), row(3.0, better="lower", unit="ms", name="cached")]
    path = tmp_path / "performance.json"
    path.write_text(json.dumps({"rows": [one.as_json() for one in kept]}))
    return path


def test_a_ratio_that_is_worse_by_a_quarter_is_told_with_both_figures(before: Path) -> None:
    assert regressions([row(5.9), row(1.6, better="lower", name="search over its parts")], before) == [
        "ingestion over naive: 5.9, before 8",
        "search over its parts: 1.6, before 1.2",
    ]


def test_what_is_better_about_the_same_new_or_in_seconds_is_none(before: Path) -> None:
    kept = [row(6.1), row(99.0), row(1.4, better="lower", name="search over its parts")]
    assert regressions([*kept, row(0.1, name="new"), row(900, better="lower", unit="ms", name="cached")], before) == []


def test_a_row_says_whether_its_goal_was_met() -> None:
    assert [row(5.0).met, row(4.9).met, row(5.0, better="lower").met, row(5.1, better="lower").met] == [True, False, True, False]
    assert "**missed**" in row(4.9).as_markdown()
    assert "| 5 x | ≥ 5 x | met |" in row(5.0).as_markdown()
