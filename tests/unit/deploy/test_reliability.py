"""The table of promises names tests that exist, and long forms where there are some."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reliability.md"


@dataclass(frozen=True)
class Row:
    """One promise; `files` are those it names, else those of the row before ("the same")."""

    promise: str
    attack: str
    times: str
    seen: str
    files: tuple[str, ...]


def _rows() -> Iterator[Row]:
    """A name without a folder lies in one that its section has named before."""
    folders: list[str] = []
    files: tuple[str, ...] = ()
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            folders, files = [], ()
        if not line.startswith("| ") or line.startswith(("| promise", "| ---")):
            continue
        promise, attack, times, seen, _ = (cell.strip() for cell in line.strip("|").split(" |"))
        named = re.findall(r"`([\w/]+\.py)`", attack)
        folders += [name.rpartition("/")[0] for name in named if "/" in name]
        found = tuple(name if "/" in name else _beside(name, folders) for name in named)
        files = found + (files if attack.startswith("the same") else ())
        yield Row(promise, attack, times, seen, files)


def _beside(name: str, folders: list[str]) -> str:
    places = [f"{folder}/{name}" for folder in reversed(folders)]
    return next((place for place in places if (ROOT / place).is_file()), name)


ROWS = list(_rows())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.promise)
def test_a_promise_is_attacked_by_tests_that_exist_and_says_what_was_seen(row: Row) -> None:
    assert row.files or re.search(r"`make [\w-]+`", row.attack), "it says what attacks it"
    assert [name for name in row.files if not (ROOT / name).is_file()] == []
    assert row.seen


LONG = [row for row in ROWS if row.files and re.search(r" / (?!–)", row.times)]


@pytest.mark.parametrize("row", LONG, ids=lambda row: row.promise)
def test_a_long_form_that_is_told_is_marked_as_one(row: Row) -> None:
    assert any("mark.long" in (ROOT / name).read_text() for name in row.files)
