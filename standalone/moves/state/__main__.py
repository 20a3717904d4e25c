"""`python -m standalone.moves.state --to postgresql://...` or `--to sqlite`, which is `make move-state`."""

from __future__ import annotations

import argparse
import sqlite3
import sys

from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.settings import FolderSettings
from standalone.moves.state.moving import SQLITE, MovedState, move_state


def main() -> int:
    """Returns the exit code."""
    asked = _parser().parse_args()
    try:
        settings = FolderSettings()
        logs.configure(level="warning", log_format=settings.log_format, service="moves")
        moved = move_state(settings, asked.to, replace=asked.replace, told=_tell)
        print(_said(moved, asked.to))
    except ValidationError as error:
        print(f"The settings don't hold:\n{error}", file=sys.stderr)
        return 1
    except (ImageSearchError, OSError, sqlite3.Error) as error:
        print(f"The state was not moved: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Broken off; nothing was moved", file=sys.stderr)
        return 130
    return 0


def _tell(table: str, copied: int, rows: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{table}: {copied:,} of {rows:,} rows", end="\n" if copied == rows else "", file=sys.stderr, flush=True)


def _said(moved: MovedState, to: str) -> str:
    setting = (
        "unset DATABASE_URL and BROKER_URL" if to == SQLITE else "set DATABASE_URL to it, for every watcher and search service"
    )
    left_out = "".join(f"{moved.source} has no {part.value}: that was left as it is.\n" for part in sorted(moved.left_out))
    return (
        f"From {moved.source} to {moved.target}, read back and found the same:\n"
        + "".join(f"  {table.name:12} {table.rows:>12,} rows  sha256 {table.digest[:16]}\n" for table in moved.tables)
        + left_out
        + f"Now {setting}. What was copied is still where it was; remove it when you miss nothing."
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m standalone.moves.state",
        description="Ledger and ratings into another home, while the product does not run. The settings name the home that they leave."
        " Nothing is analysed again, and every spent token stays spent.",
    )
    parser.add_argument("--to", required=True, help="`sqlite` (in DATA_DIR), or the URL of a PostgreSQL database")
    parser.add_argument(
        "--replace", action="store_true", help="remove the ledger and the ratings that the new home holds already"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
