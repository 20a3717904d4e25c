"""The table and its plot, as files of the documents."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.rows import HEAD, Row

_INTRODUCTION = """# Performance

Measured by `make bench` in one run: what is over something is a ratio, so a machine that is busy elsewhere slows both sides. Models have
random weights of the true architecture where the real ones cannot be shipped; that is as fast, and says nothing of what is found.
"""


_FURTHEST = 10.0


def write(folder: Path, facts: dict[str, Any], rows: Sequence[Row]) -> None:
    """`performance.json`, `performance.md` and `images/performance.png`."""
    measured = {
        "measured_at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": facts,
        "rows": [row.as_json() for row in rows],
    }
    (folder / "performance.json").write_text(json.dumps(measured, indent=2) + "\n")
    _plot(folder / "images" / "performance.png", rows)
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    about = (
        f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {facts['system']}, Python {facts['python']}; "
        f"{packages}. Load before the run: {facts['load_before']}."
    )
    table = [*HEAD, *(row.as_markdown() for row in rows)]
    page = [_INTRODUCTION, about, "", "![each figure against its goal](images/performance.png)", "", *table, ""]
    notes = folder / "explanation" / "performance-notes.md"
    if notes.exists():
        page += [f"What stands behind the figures: [notes](explanation/{notes.name}).", ""]
    (folder / "performance.md").write_text("\n".join(page))


def _plot(path: Path, rows: Sequence[Row]) -> None:
    """How far each figure is beyond its goal, on a logarithmic scale and no further than it shows: right of the line is better."""
    import matplotlib as mpl  # noqa: PLC0415 - it belongs to the extra `training`

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    measured = [(row, row.value) for row in rows if row.value is not None]
    beyond = [value / row.goal if row.better == "higher" else row.goal / max(value, 1e-9) for row, value in measured]
    shown = [min(_FURTHEST, max(1 / _FURTHEST, one)) for one in beyond]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(measured) + 1.2), layout="constrained")
    axes.barh(
        [row.name for row, _ in measured],
        [one - 1 for one in shown],
        left=1,
        color=["#2a7" if row.met else "#c43" for row, _ in measured],
    )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xlim(1 / _FURTHEST, _FURTHEST)
    ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlabel("times the goal")
    axes.invert_yaxis()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
