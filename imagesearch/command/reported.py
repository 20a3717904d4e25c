"""What came of a run that is gone on with, said at the terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from imagesearch.backfill.reporting import Report
from imagesearch.command.screen import Screen


def tell(report: Report, home: Path, screen: Screen, *, done: str) -> None:
    """`done` is the word for rows that came to their end; the report itself lies in `home`."""
    if screen.as_json:
        screen.document(asdict(report))
        return
    if not screen.for_people:
        counts = {"rows": report.rows, "indexed": report.indexed, "parked": report.parked, **report.left}
        screen.line(*(f"{name}={count}" for name, count in counts.items()))
    screen.say(f"{report.rows:,} rows: {report.indexed:,} {done}, {report.parked:,} given up; {home / 'report.md'}")
