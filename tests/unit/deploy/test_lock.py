"""What is installed is what was looked at: each version in the lock stands there with its hashes, and the lock covers what is asked for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
LOCK = (REPOSITORY / "requirements.lock").read_text()
ENTRIES = {found[1].lower(): found[0] for found in re.finditer(r"^([A-Za-z0-9._-]+)==[^\n]*(?:\n +[^\n]*)*", LOCK, re.MULTILINE)}


def _plain(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_version_is_exact_and_has_hashes() -> None:
    lines = [line for line in LOCK.splitlines() if line and not line.startswith((" ", "#"))]
    assert len(lines) > 50
    assert [line for line in lines if not re.match(r"[A-Za-z0-9._-]+(\[[a-z,-]+\])?==\S+", line)] == []
    unproven = [name for name, entry in ENTRIES.items() if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    assert unproven == []
    assert len(ENTRIES) == len({line.split("==")[0] for line in lines})


def test_nothing_comes_from_another_place_than_the_index() -> None:
    assert not re.search(r"https?://|git\+|--index|--extra-index|--find-links|--trusted-host|-e ", LOCK)


def test_everything_that_is_asked_for_is_in_the_lock() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    assert {_plain(one) for one in asked} - {"imagesearch"} - ENTRIES.keys() == set()


def test_every_installation_demands_the_hashes() -> None:
    for line in (REPOSITORY / "Makefile").read_text().splitlines():
        if "uv pip install" in line and "--editable" not in line:
            assert "--require-hashes" in line, line
