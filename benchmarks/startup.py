"""How long a start takes until a search could be answered, and what the processes hold while nothing is asked of them.

python -m benchmarks.startup [--profile starter] [--models-dir models] [--times 3]
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.checkpoints import random_clip
from benchmarks.machine import facts
from benchmarks.rows import HEAD, Row
from tests.e2e.product import Product

_SETTLED_AFTER_S = 5.0
_LONGEST_START_S = 600.0
"""The first one may export a model."""
_GOALS_S = {"starter": 5.0, "clip": 8.0}


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds to ready, what of them the processes computed, and their MiB a few seconds later."""

    seconds: float
    cpu_s: float
    pss_mib: dict[str, float]
    rss_mib: dict[str, float]


def rows(folder: Path, *, profile: str = "starter", models_dir: Path | None = None, times: int = 3) -> list[Row]:
    """The best of some starts: what else the machine does can only make one slower. One before them fills the file cache."""
    models_dir = models_dir or folder / "models"
    starts = [_start(folder / str(number), profile, models_dir) for number in range(times + 1)][1:]
    best = min(starts, key=lambda start: start.seconds)
    seconds = " ".join(f"{start.seconds:.1f}" for start in starts)
    in_all = sum(best.pss_mib.values())
    return [
        Row(
            f"cold start to ready, `{profile}`",
            best.seconds,
            _GOALS_S.get(profile, 8.0),
            "lower",
            "s",
            {"seconds": seconds, "cpu_s": min(start.cpu_s for start in starts)},
            "The best start counts. CPU seconds are those of all processes; they depend little on what else the machine does.",
        ),
        Row("idle memory, watcher and search", best.pss_mib["standalone"], 300.0, "lower", "MiB"),
        Row(
            f"idle memory with `{profile}` in all",
            in_all,
            700.0,
            "lower",
            "MiB",
            {"models_mib": in_all - best.pss_mib["standalone"], "rss_mib": sum(best.rss_mib.values())},
            "Memory is PSS, which shares out what processes have in common.",
        ),
    ]


def clip_row(folder: Path) -> Row:
    """`clip` with weights on disk, exported before where it is served from an export; random ones of the true architecture."""
    random_clip(folder / "models")
    return rows(folder, profile="clip", models_dir=folder / "models")[0]


def _start(place: Path, profile: str, models_dir: Path) -> Start:
    """Start the product with empty folders, wait until it is ready, let it rest, and end it."""
    environment = {"MODEL_PROFILE": profile, "SEGMENTER": "none", "IMAGE_MODEL": "none"}
    with Product(place, models_dir=models_dir, environment=environment) as product:
        begun = time.perf_counter()
        product.start_and_wait(timeout_s=_LONGEST_START_S)
        seconds = time.perf_counter() - begun
        assert product.process is not None  # noqa: S101 - it was started
        processes = {"standalone": product.process.pid, **_children_of(product.process.pid)}
        cpu_s = sum(map(_cpu_s, processes.values()))
        time.sleep(_SETTLED_AFTER_S)
        memory = {name: _memory_mib(pid) for name, pid in processes.items()}
        product.interrupt()
    return Start(
        seconds,
        cpu_s,
        {name: found["Pss"] for name, found in memory.items()},
        {name: found["Rss"] for name, found in memory.items()},
    )


def _children_of(pid: int) -> dict[str, int]:
    children = (child for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split())
    return {f"child {child}": int(child) for child in children}


def _cpu_s(pid: int) -> float:
    after_the_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_the_name[11]) + int(after_the_name[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mib(pid: int) -> dict[str, float]:
    """`Pss` shares out what processes have in common; `Rss` counts it for each."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) / 1024 for name, size in (line.split(":", 1) for line in lines)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--profile", default="starter")
    parser.add_argument("--models-dir", type=Path)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-startup-") as folder:
        found = rows(Path(folder), profile=asked.profile, models_dir=asked.models_dir, times=asked.times)
    print(json.dumps({"machine": facts(), "rows": [row.as_json() for row in found]}, indent=2))
    print("\n".join([*HEAD, *(row.as_markdown() for row in found)]))


if __name__ == "__main__":
    main()
