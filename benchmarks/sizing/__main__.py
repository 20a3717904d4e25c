"""What stands in docs/explanation/sizing.md: `python -m benchmarks.sizing [--only points|files|rows|traffic|losses|page]`

A quarter of an hour on two cores. Photos are those of `IMAGESEARCH_SHARED`; Redis and PostgreSQL are Debian's. CPU seconds of the models are
those of docs/performance.json.
What was measured goes into `imagesearch/sizing/measured.json`, what was played into `docs/explanation/sizing.json`; `--only page` writes
the page from both, and measures nothing.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.sizing import computing, costing, ledgers, masks, page, storage, traffic, trouble
from tests.postgres import postgres_server

_DOCS = Path("docs/explanation")
_PERFORMANCE = Path("docs/performance.json")
_WHOLE, _MIXED = (6_000, 12_000), (600, 1_800)
"""Pictures, few and many: without their segments, and with nine each. Fewer than some thousand points the engine builds no index over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        choices=["points", "files", "rows", "traffic", "losses", "page"],
        help="leave the rest as it was measured before",
    )
    options = parser.parse_args()
    measures: dict[str, Callable[[Path], dict[str, Any]]] = {
        "points": _points,
        "files": _files,
        "rows": _rows,
        "traffic": _traffic,
    }
    seen = costing.seen()
    for name, measure in measures.items():
        if options.only in {None, name}:
            with tempfile.TemporaryDirectory(prefix="imagesearch-sizing-") as folder:
                seen |= measure(Path(folder))
            costing.write(seen)
    if options.only in {None, "losses"}:
        (_DOCS / "sizing.json").write_text(json.dumps(trouble.played_out(), indent=2) + "\n")
    page.write(_DOCS)


def _points(folder: Path) -> dict[str, Any]:
    photos = masks.payloads()
    whole = [points[:1] for points in photos]
    images = [storage.stored(folder / f"images-{n}", whole, n)._asdict() for n in _WHOLE]
    mixed = [storage.stored(folder / f"mixed-{n}", photos, n, quantization="scalar")._asdict() for n in _MIXED]
    return {"points": {"regions": sum(len(points) - 1 for points in photos) / len(photos), "images": images, "mixed": mixed}}


def _files(folder: Path) -> dict[str, Any]:
    return {"files": computing.files(folder)._asdict(), "computing": computing.computed(_PERFORMANCE)._asdict()}


def _rows(folder: Path) -> dict[str, Any]:
    with postgres_server() as server:
        return {"rows": ledgers.measured(folder, server)._asdict()}


def _traffic(folder: Path) -> dict[str, Any]:
    with postgres_server() as server:
        return {"traffic": traffic.measured(folder, server, count=400)._asdict()}


if __name__ == "__main__":
    main()
