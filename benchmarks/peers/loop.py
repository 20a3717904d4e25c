"""Run a peer's loop, in its own environment, and print what was seen as a line of JSON.

python -m benchmarks.peers.loop NAME ingest PICTURES MODELS SCRATCH WORKERS
python -m benchmarks.peers.loop NAME search COUNT MODELS SCRATCH
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.peers.clock import Clock


def main(name: str, what: str, *arguments: str) -> None:
    module = importlib.import_module(f"benchmarks.peers.loops.{name}")
    with contextlib.redirect_stdout(sys.stderr):  # what peers print is none of ours
        seen = _search(module, *arguments) if what == "search" else _ingest(module, *arguments)
    print(json.dumps(seen))


def _ingest(module: Any, pictures: str, models: str, scratch: str, workers: str) -> dict[str, float]:
    files = sorted(Path(pictures).iterdir())
    clock = Clock(len(files))
    module.run(files, Path(models), Path(scratch), int(workers), clock)
    return {"per_s": clock.per_s()}


def _search(module: Any, count: str, models: str, scratch: str) -> dict[str, float]:
    found: dict[str, float] = module.search(int(count), Path(models), Path(scratch))
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
