"""`python -m standalone.moves --to http://qdrant:6333` or `--to edge`, which is `make move-vectors`."""

from __future__ import annotations

import argparse
import asyncio
import sqlite3
import sys

from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.settings import FolderSettings
from standalone.moves.moving import EDGE, Moved, move


def main() -> int:
    """Returns the exit code."""
    asked = _parser().parse_args()
    try:
        settings = FolderSettings()
        logs.configure(level="warning", log_format=settings.log_format, service="moves")
        moved = asyncio.run(move(settings, asked.to, replace=asked.replace, told=_tell))
        print(_said(moved, asked.to))
    except ValidationError as error:
        print(f"The settings don't hold:\n{error}", file=sys.stderr)
        return 1
    except (ImageSearchError, OSError, sqlite3.Error) as error:
        print(f"The vectors were not moved: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Broken off; the same command goes on", file=sys.stderr)
        return 130
    return 0


def _tell(collection: str, copied: int, points: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{collection}: {copied:,} of {points:,} points", end="", file=sys.stderr, flush=True)


def _said(moved: Moved, to: str) -> str:
    points = sum(moved.points.values())
    setting = "unset QDRANT_URL" if to == EDGE else f"set QDRANT_URL={to}"
    return (
        f"{points:,} points in {len(moved.points)} collections were copied and counted, {moved.compared:,} of them compared.\n"
        f"Now {setting}. What was copied is still where it was; remove it when you miss nothing."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m standalone.moves",
        description="All points into another home of the vectors, while the product does not run. The settings name the home that they"
        " leave. Nothing is embedded again.",
    )
    parser.add_argument("--to", required=True, help="`edge` (embedded in DATA_DIR), or the URL of a Qdrant server or its nodes")
    parser.add_argument("--replace", action="store_true", help="remove points that the new home holds already")
    return parser


if __name__ == "__main__":
    sys.exit(main())
