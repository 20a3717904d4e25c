"""`python -m standalone.backups take [FOLDER]` and `... restore FOLDER`, which are `make backup` and `make restore`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sqlite3
import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from core import logs
from core.databases import RestoreBrokenOff
from core.errors import ImageSearchError
from core.settings import FolderSettings, faults_of
from standalone.backups.manifest import Manifest
from standalone.backups.restoring import restore
from standalone.backups.taking import take
from standalone.telling import tell

_IN_THE_DATABASE = "Ledger and ratings are left out: they lie in the database of DATABASE_URL (pg_dump; docs/how-to/scale-out.md)"


def main() -> int:
    """Returns the exit code."""
    asked = _parser().parse_args()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # asyncio's own would only ask what copies to end, which hears it when it is done
        signal.signal(signal.SIGINT, _broken_off)
    try:
        settings = FolderSettings()
        logs.configure(level="warning", log_format=settings.log_format, service="backups")
        _run(asked, settings)
    except ValidationError as error:
        print(f"The settings don't hold:\n{faults_of(error)}", file=sys.stderr)
        return 1
    except RestoreBrokenOff as error:
        print(f"Nothing starts on half of it: {error}", file=sys.stderr)
        return 1
    except (ImageSearchError, OSError, sqlite3.Error) as error:
        print(f"Nothing was done: {error}" if asked.command == "restore" else f"No backup was made: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Broken off; run it again", file=sys.stderr)
        return 130
    return 0


def _run(asked: argparse.Namespace, settings: FolderSettings) -> None:
    if asked.pictures and settings.images_url is not None:
        raise ImageSearchError("the pictures lie in a bucket, which is to keep versions itself: leave PICTURES out")
    if asked.command == "take":
        target = asked.folder or Path("backups") / f"{datetime.now(UTC):%Y-%m-%dT%H%M%SZ}"
        manifest = asyncio.run(take(settings, target, vectors=not asked.without_vectors, pictures=asked.pictures))
        tell(f"{target}: {_said(manifest)}")
    else:
        manifest, before = asyncio.run(restore(settings, asked.folder, pictures=asked.pictures))
        tell(f"{settings.data_dir} holds the backup of {manifest.made_at:%Y-%m-%d %H:%M} UTC: {_said(manifest)}")
        if before is not None:
            tell(f"What was there before lies in {before}; remove it when you miss nothing")
    if settings.database_url is not None:
        tell(_IN_THE_DATABASE)


def _broken_off(*_: object) -> None:
    raise KeyboardInterrupt


def _said(manifest: Manifest) -> str:
    parts = [
        None if manifest.images is None else f"{manifest.images:,} indexed pictures",
        None if manifest.vectors == "none" else f"{sum(manifest.points.values()):,} points in {len(manifest.points)} collections",
        None if manifest.ratings is None else f"{manifest.ratings:,} ratings",
        None if manifest.pictures is None else f"{manifest.pictures:,} files of the watched folder",
    ]
    return ", ".join(part for part in parts if part is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m standalone.backups", description="What the product keeps, copied and put back."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    taking = commands.add_parser("take", help="copy it, while everything runs")
    taking.add_argument("folder", type=Path, nargs="?", help="made anew (default: backups/ and the time)")
    taking.add_argument("--pictures", action="store_true", help="the watched folder as well")
    taking.add_argument("--without-vectors", action="store_true", help="where another container backs them up")
    restoring = commands.add_parser("restore", help="put it back, while nothing runs")
    restoring.add_argument("folder", type=Path, help="the backup")
    restoring.add_argument("--pictures", action="store_true", help="bring back pictures that are missing in the watched folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
