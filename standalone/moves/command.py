"""What the commands that move something have in common: their settings, how they end, and what they tell on the way."""

from __future__ import annotations

import sqlite3
import sys
from argparse import ArgumentParser
from collections.abc import Callable

from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.settings import FolderSettings, faults_of
from standalone.telling import tell


def parser(prog: str, description: str, *, to: str, replace: str) -> ArgumentParser:
    """`to` and `replace` say what these options take."""
    made = ArgumentParser(prog=prog, description=description)
    made.add_argument("--to", required=True, help=to)
    made.add_argument("--replace", action="store_true", help=replace)
    return made


def run(move: Callable[[FolderSettings], str], *, what: str, broken_off: str) -> int:
    """Tell what `move` returns, or why it failed: `what` was not moved. Returns the exit code."""
    try:
        settings = FolderSettings()
        logs.configure(level="warning", log_format=settings.log_format, service="moves")
        tell(move(settings))
    except ValidationError as error:
        print(f"The settings don't hold:\n{faults_of(error)}", file=sys.stderr)
        return 1
    except (ImageSearchError, OSError, sqlite3.Error) as error:
        print(f"{what} not moved: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Broken off; {broken_off}", file=sys.stderr)
        return 130
    return 0


def teller(unit: str) -> Callable[[str, int, int], None]:
    """Tells people at a terminal how many of a part were copied, and of how many."""

    def tell(part: str, copied: int, of: int) -> None:
        if sys.stderr.isatty():
            print(f"\r{part}: {copied:,} of {of:,} {unit}", end="\n" if copied == of else "", file=sys.stderr, flush=True)

    return tell
