"""`python -m standalone.moves.state --to postgresql://...` or `--to sqlite`, which is `make move-state`."""

from __future__ import annotations

import sys

from standalone.moves import command
from standalone.moves.state.moving import SQLITE, MovedState, move_state


def main() -> int:
    """Returns the exit code."""
    asked = command.parser(
        "python -m standalone.moves.state",
        "Ledger and ratings into another home, while the product does not run. The settings name the home that they leave."
        " Nothing is analysed again, and every spent token stays spent.",
        to="`sqlite` (in DATA_DIR), or the URL of a PostgreSQL database",
        replace="remove the ledger and the ratings that the new home holds already",
    ).parse_args()
    told = command.teller("rows")
    return command.run(
        lambda settings: _said(move_state(settings, asked.to, replace=asked.replace, told=told), asked.to),
        what="The state was",
        broken_off="nothing was moved",
    )


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


if __name__ == "__main__":
    sys.exit(main())
