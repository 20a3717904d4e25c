"""The commands of the Makefile: each is listed, each that a page names is there, and what one lacks it names."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
COMMANDS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(("make", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_command_that_a_page_names_is_there(page: Path) -> None:
    named = set(re.findall(r"(?:^ +|`|&& )make ([a-z-]+)", page.read_text(), re.MULTILINE))
    assert named - COMMANDS == set()


def test_help_lists_every_command_and_no_file_of_that_name_stands_in_its_way() -> None:
    listed = re.findall(r"^  make (\S+) +\S", make("help").stdout, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(listed) == sorted(COMMANDS) == sorted(phony[1].split())


@pytest.mark.parametrize(("command", "variable"), [("restore", "FROM"), ("move-vectors", "TO"), ("move-state", "TO")])
def test_a_command_that_lacks_its_variable_says_which_before_it_does_anything(command: str, variable: str) -> None:
    made = make("--dry-run", command)
    assert made.returncode == 2
    assert f"{variable} is missing: make {command} {variable}=" in made.stderr


def test_a_python_that_is_too_old_is_told_and_makes_no_environment(tmp_path: Path) -> None:
    old = tmp_path / "python3.9"
    old.write_text(
        f"""#!/bin/sh\nexec {sys.executable} -c 'import sys; sys.version_info = (3, 9, 6); exec(sys.argv[1])' "$2"\n"""
    )
    old.chmod(0o755)
    made = make("build", f"VENV={tmp_path}/venv", f"PYTHON={old}")
    assert made.returncode == 2
    assert f"Python 3.11 or newer is needed; {old} is 3.9." in made.stderr
    assert not (tmp_path / "venv").exists()
