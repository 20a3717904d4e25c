"""When a file is complete, as a table: what was seen at which time, and whether that settles it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from watcher.locations import FileStat
from watcher.stability import Look, SettleRules, Settling, Writing

RULES = SettleRules(settle_s=1.5, truncated_after_s=10, agree_s=0.06)
OPEN, CLOSED, UNKNOWN = Writing.OPEN, Writing.CLOSED, Writing.UNKNOWN
SMALL, LARGE = FileStat(10, 1, 1), FileStat(20, 2, 1)


def look(at: float, writing: Writing, complete: bool | None, *, stat: FileStat = SMALL, age_s: float = 0.0) -> Look:
    return Look(at, stat, writing, complete, age_s)


@pytest.mark.parametrize(
    ("looks", "settled"),
    [
        pytest.param([look(0, CLOSED, True)], False, id="one look at a new file is not enough"),
        pytest.param([look(0, CLOSED, True), look(0.06, CLOSED, True)], True, id="two that agree are, closed and with its end"),
        pytest.param([look(0, CLOSED, True), look(0.05, CLOSED, True)], False, id="not if they are too near each other"),
        pytest.param([look(0, CLOSED, True), look(0.1, CLOSED, True, stat=LARGE)], False, id="not if they differ"),
        pytest.param([look(0, CLOSED, True, age_s=2)], True, id="an old file that is closed settles at once"),
        pytest.param([look(0, CLOSED, None, age_s=2)], True, id="also without a telling end"),
        pytest.param([look(0, CLOSED, False, age_s=9)], False, id="not without its end"),
        pytest.param([look(0, CLOSED, False, age_s=11)], True, id="but after a long time"),
        pytest.param([look(0, OPEN, True, age_s=5000)], False, id="never while open for writing"),
        pytest.param([look(0, OPEN, True), look(3600, OPEN, True)], False, id="however long the writer pauses"),
        pytest.param([look(0, OPEN, True), look(50, CLOSED, True)], True, id="open before, closed now, unchanged"),
        pytest.param([look(0, UNKNOWN, True), look(1.4, UNKNOWN, True)], False, id="unknown writers: quiet for a while"),
        pytest.param([look(0, UNKNOWN, True), look(1.5, UNKNOWN, True)], True, id="quiet long enough"),
        pytest.param([look(0, UNKNOWN, True, age_s=2)], True, id="old, with its end, writers unknown"),
        pytest.param([look(0, UNKNOWN, None, age_s=2000)], False, id="a tool may have set the mtime back before it was done"),
        pytest.param([look(0, UNKNOWN, False), look(9.9, UNKNOWN, False)], False, id="without its end: wait long"),
        pytest.param([look(0, UNKNOWN, False), look(10, UNKNOWN, False)], True, id="then go on"),
        pytest.param([look(0, CLOSED, True, age_s=-100), look(0.1, CLOSED, True, age_s=-100)], True, id="mtime in the future"),
    ],
)
def test_a_file_settles_when(looks: Sequence[Look], settled: bool) -> None:
    settling = Settling(RULES)
    verdicts = [settling.judge(one) for one in looks]
    assert all(verdict is not None for verdict in verdicts[:-1])
    assert (verdicts[-1] is None) == settled


def test_a_close_event_settles_quickly_where_writers_are_unknown() -> None:
    settling = Settling(RULES)
    settling.close_event()
    assert settling.judge(look(0, UNKNOWN, True)) is not None
    assert settling.judge(look(0.06, UNKNOWN, True)) is None


def test_a_change_after_the_close_event_takes_its_word_back() -> None:
    settling = Settling(RULES)
    settling.close_event()
    settling.judge(look(0, UNKNOWN, True))
    settling.judge(look(0.06, UNKNOWN, True, stat=LARGE))
    assert settling.judge(look(0.2, UNKNOWN, True, stat=LARGE)) is not None


def test_looks_at_an_open_file_become_rare_but_never_cease() -> None:
    settling = Settling(RULES)
    pauses = [settling.judge(look(float(at), OPEN, None)) for at in range(40)]
    assert pauses[0] is not None
    assert pauses[0] < 0.2
    assert pauses[-1] == RULES.slowest_look_s
