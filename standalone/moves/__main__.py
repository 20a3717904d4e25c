"""`python -m standalone.moves --to http://qdrant:6333` or `--to edge`, which is `make move-vectors`."""

from __future__ import annotations

import asyncio
import sys

from standalone.moves import command
from standalone.moves.moving import EDGE, Moved, move


def main() -> int:
    """Returns the exit code."""
    asked = command.parser(
        "python -m standalone.moves",
        "All points into another home of the vectors, while the product does not run. The settings name the home that they leave."
        " Nothing is embedded again.",
        to="`edge` (embedded in DATA_DIR), or the URL of a Qdrant server or its nodes",
        replace="remove points that the new home holds already",
    ).parse_args()
    told = command.teller("points")
    return command.run(
        lambda settings: _said(asyncio.run(move(settings, asked.to, replace=asked.replace, told=told)), asked.to),
        what="The vectors were",
        broken_off="the same command goes on",
    )


def _said(moved: Moved, to: str) -> str:
    points = sum(moved.points.values())
    setting = "unset QDRANT_URL" if to == EDGE else f"set QDRANT_URL={to}"
    return (
        f"{points:,} points in {len(moved.points)} collections were copied and counted, {moved.compared:,} of them compared.\n"
        f"Now {setting}. What was copied is still where it was; remove it when you miss nothing."
    )


if __name__ == "__main__":
    sys.exit(main())
