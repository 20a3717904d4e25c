"""Is it slower than it was? Ratios against ratios, since seconds of one machine say nothing of another's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.rows import Row

TOLERANCE = 0.25
"""Share by which a ratio may be worse than before."""


def regressions(rows: Sequence[Row], before: Path) -> list[str]:
    """What became worse, in words. Rows that are not ratios, or were not measured before, are passed over."""
    known = {row["name"]: row for row in json.loads(before.read_text())["rows"]}
    told: list[str] = []
    for row in rows:
        earlier = known.get(row.name)
        if row.value is None or earlier is None or row.unit not in {"x", ""} or (earlier["value"] or 0) <= 0:
            continue
        change = row.value / earlier["value"]
        worse = change < 1 - TOLERANCE if row.better == "higher" else change > 1 + TOLERANCE
        if worse:
            told.append(f"{row.name}: {row.value:.3g}, before {earlier['value']:.3g}")
    return told
