"""`make test`: the tests that bear company several at a time, then those that are marked `serial` one by one, each with its summary.

python -m tests.phases [what pytest takes]        (TEST_WORKERS=1: all of them one by one)

A test's verdict is its verdict alone: a few that failed in company, where three share two cores, are run once more by themselves, and
named at the end. What fails alone fails, and so does a run in which more than a few failed, or a worker died: what it had before it was
not run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

_NONE_CHOSEN = 5  # pytest's exit code
_FAILED = 1
_WORKERS = "3"  # on two cores: many tests wait, for a process to start or for a file to settle
A_FEW = 5
_TOLD = Path(".pytest_cache/in-company.xml")
_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")

_IN_COMPANY = ["-m", "not long and not serial"]


def main(arguments: list[str]) -> int:
    """All phases run whatever becomes of the first. Returns the exit code of the first that failed."""
    workers = os.environ.get("TEST_WORKERS", _WORKERS)
    for earlier in (_LAST_FAILED, _TOLD):
        earlier.unlink(missing_ok=True)
    beside = [*_IN_COMPANY, "--numprocesses", workers, "--dist", "loadfile", "--max-worker-restart", "0", f"--junitxml={_TOLD}"]
    codes = {"beside each other": _run("beside each other", [*beside, *arguments])}
    failed = _failed()
    whole = _TOLD.exists() and "' crashed while running '" not in _TOLD.read_text()
    if codes["beside each other"] == _FAILED and whole and 0 < len(failed) <= A_FEW:
        codes["beside each other"] = _run("again, by themselves", [*_IN_COMPANY, *failed])
    codes["one by one"] = _run("one by one", ["-m", "serial and not long", *arguments])
    for name, code in codes.items():
        print(
            f"==> tests, {name}: {'passed' if code == 0 else 'none' if code == _NONE_CHOSEN else f'FAILED ({code})'}", flush=True
        )
    for test in failed:
        print(f"==> failed in company: {test}", flush=True)
    wrong = [code for code in codes.values() if code not in {0, _NONE_CHOSEN}]
    return wrong[0] if wrong else min(codes.values())


def _run(name: str, options: list[str]) -> int:
    print(f"==> tests, {name}", flush=True)
    return subprocess.run([sys.executable, "-m", "pytest", *options], check=False).returncode


def _failed() -> list[str]:
    return sorted(json.loads(_LAST_FAILED.read_text())) if _LAST_FAILED.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
