"""`make test`: the tests that bear company several at a time, then those that are marked `serial` one by one, each with its summary.

python -m tests.phases [what pytest takes]        (TEST_WORKERS=1: all of them one by one)
"""

from __future__ import annotations

import os
import subprocess
import sys

_NONE_CHOSEN = 5  # pytest's exit code
_WORKERS = "3"  # on two cores: many tests wait, for a process to start or for a file to settle


def main(arguments: list[str]) -> int:
    """Both phases run whatever becomes of the first. Returns the exit code of the first that failed."""
    workers = os.environ.get("TEST_WORKERS", _WORKERS)
    phases = {
        "beside each other": [
            "-m",
            "not long and not serial",
            "--numprocesses",
            workers,
            "--dist",
            "loadfile",
            "--max-worker-restart",
            "0",
        ],
        "one by one": ["-m", "serial and not long"],
    }
    codes = {}
    for name, options in phases.items():
        print(f"==> tests, {name}", flush=True)
        codes[name] = subprocess.run([sys.executable, "-m", "pytest", *options, *arguments], check=False).returncode
    for name, code in codes.items():
        print(
            f"==> tests, {name}: {'passed' if code == 0 else 'none' if code == _NONE_CHOSEN else f'FAILED ({code})'}", flush=True
        )
    failed = [code for code in codes.values() if code not in {0, _NONE_CHOSEN}]
    return failed[0] if failed else min(codes.values())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
