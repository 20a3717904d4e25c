"""Every row of docs/performance.md in one run.

    python -m benchmarks [--long] [--peers] [--only WORD] [--into docs] [--against docs/performance.json]

Ten minutes on two cores. `--long` takes more pictures and a million points, which is an hour; `--peers` adds other libraries, each in an
environment of its own, which is ten minutes more, and the first time 800 MB on disk. Speeds are ratios of things measured in the
same run, so that a busy machine slows both. Writes `performance.json` (with the machine's facts), `performance.md` and a plot; or, with
`--against`, nothing, and fails where a ratio is worse by a quarter than it was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import guard, ingestion, machine, recall, report, rescan, search, segmentation, startup, workers
from benchmarks.checkpoints import random_clip
from benchmarks.ingestion import Case
from benchmarks.peers import comparison
from benchmarks.photos import SHARED
from benchmarks.rows import Row

_YOLO = SHARED / "models" / "yolov8n-seg.pt"
_CLIP = {"MODEL_PROFILE": "clip", "IMAGE_MODEL": "none", "HF_HUB_OFFLINE": "1"}

Measure = Callable[[Path], list[Row]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="more pictures, a million points")
    parser.add_argument(
        "--peers", action="store_true", help="other libraries' own loops beside ours, installed where they are not"
    )
    parser.add_argument("--peers-dir", type=Path, default=Path("build/peers"), help="the folder of their environments")
    parser.add_argument("--only", default="", help="measurements whose name has this word")
    parser.add_argument("--into", type=Path, default=Path("docs"), help="the folder to write to")
    parser.add_argument("--against", type=Path, help="an earlier performance.json that nothing may be worse than")
    options = parser.parse_args()
    facts, rows = machine.facts(), list[Row]()
    for name, measure in measurements(long=options.long, peers=options.peers_dir if options.peers else None):
        if options.only not in name:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="imagesearch-bench-") as folder:
            found = measure(Path(folder))
        rows += found
        print(
            "\n".join(row.as_markdown() for row in found),
            f"({name}: {time.perf_counter() - started:.0f} s)",
            sep="\n",
            flush=True,
        )
    print(json.dumps({"met": sum(row.met is True for row in rows), "rows": sum(row.met is not None for row in rows)}))
    if options.against is not None:
        worse = guard.regressions(rows, options.against)
        print("\n".join(worse or ["nothing is worse than before"]))
        return 1 if worse else 0
    if not options.only:
        report.write(options.into, facts, rows)
    return 0


def measurements(*, long: bool, peers: Path | None = None) -> Iterator[tuple[str, Measure]]:
    """By name, in the order of the table. `peers`: the folder of their environments, None for without them."""
    yield "ingestion", lambda folder: _ingestion(folder, count=2000 if long else 300)
    if _YOLO.exists():
        yield "ingestion with regions", lambda folder: _ingestion_with_regions(folder, count=400 if long else 80)
    yield "segmentation", lambda folder: segmentation.rows(folder, count=100 if long else 16)
    if peers is not None:
        yield "peers", lambda folder: _peers(folder, peers, count=1000 if long else 300)
    yield "search", lambda folder: _search(folder, peers, count=100_000, queries=1000 if long else 200)
    yield "recall", lambda folder: asyncio.run(recall.rows(folder, 100_000))
    if long:
        yield "recall of a million", lambda folder: asyncio.run(recall.rows(folder, 1_000_000))
        yield "workers", workers.rows
    yield "rescan", rescan.rows
    yield "startup", lambda folder: [*startup.rows(folder / "starter"), startup.clip_row(folder / "clip")]


def _ingestion(folder: Path, *, count: int) -> list[Row]:
    models = folder / "models"
    naive = ingestion.naive_clip(random_clip(models))
    case = Case("CLIP ViT-B/32 (random weights)", 5.0, naive, {**_CLIP, "SEGMENTER": "none"}, segments=False)
    return ingestion.rows(folder, case, models_dir=models, count=count)


def _ingestion_with_regions(folder: Path, *, count: int) -> list[Row]:
    models = folder / "models"
    checkpoint = random_clip(models)
    (models / _YOLO.name).symlink_to(_YOLO.resolve())
    naive = ingestion.naive_clip_and_yolo(checkpoint, _YOLO)
    case = Case("CLIP (random weights) and YOLOv8n-seg", 4.0, naive, {**_CLIP, "SEGMENTER": _YOLO.name}, segments=True)
    return ingestion.rows(folder, case, models_dir=models, count=count)


def _peers(folder: Path, environments: Path, *, count: int) -> list[Row]:
    models = folder / "models"
    naive = ingestion.naive_clip(random_clip(models))
    case = Case("CLIP ViT-B/32 (random weights)", 1.0, naive, {**_CLIP, "SEGMENTER": "none"}, segments=False)
    return comparison.ingestion_rows(folder, case, models_dir=models, count=count, environments=environments)


def _search(folder: Path, peers: Path | None, *, count: int, queries: int) -> list[Row]:
    models = folder / "models"
    random_clip(models)
    rows = asyncio.run(search.rows(folder, count, profile="clip", models_dir=models, queries=queries))
    if peers is not None:
        p50_ms = rows[0].detail["p50_ms"]
        rows.append(comparison.search_row(folder, models_dir=models, count=count, ours_p50_ms=p50_ms, environments=peers))
    return rows


if __name__ == "__main__":
    sys.exit(main())
