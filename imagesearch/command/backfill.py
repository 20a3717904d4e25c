"""`imagesearch backfill`: millions of pictures from a folder, a bucket or a manifest, gone on with after anything."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shlex
import time
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from imagesearch.backfill.following import Follower
from imagesearch.backfill.journal import Journal, UnusableJournal
from imagesearch.backfill.places import source_of
from imagesearch.backfill.reporting import Report
from imagesearch.backfill.rows import Kind, Naming, Row, Source, UnreadableSource, is_text
from imagesearch.backfill.running import Backfill as Run
from imagesearch.backfill.running import Options
from imagesearch.client import AsyncClient, Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.remembered import state_home
from imagesearch.command.reported import tell
from imagesearch.command.screen import Screen
from imagesearch.steps import Retrying

_TOLD_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Backfill:
    source: str
    folder: str
    watched: str | None
    state: Path | None
    at_once: int
    rate: float | None
    limit: int | None
    dry_run: bool
    no_wait: bool
    retry: bool
    patience_s: float
    look_every_s: float
    timeout: float

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("source", help="a folder, s3://bucket/prefix, or a manifest (.csv, .parquet) with path, url or key")
        parser.add_argument("--folder", default="", help="where it goes, below the watched folder")
        parser.add_argument(
            "--watched", metavar="PLACE", help="the watched folder or bucket as seen from here: what lies in it is not sent"
        )
        parser.add_argument(
            "--state", type=Path, metavar="FOLDER", help="where journal and report lie (default: beside a manifest)"
        )
        parser.add_argument("--at-once", type=_positive, default=16, metavar="N", help="requests at once, at most (default 16)")
        parser.add_argument("--rate", type=float, metavar="N", help="pictures sent a second, at most")
        parser.add_argument("--limit", type=_positive, metavar="N", help="rows that this run takes in, at most")
        parser.add_argument("--dry-run", action="store_true", help="read the source, count, and send nothing")
        parser.add_argument("--no-wait", action="store_true", help="end when all is sent; a later run follows it")
        parser.add_argument("--retry", action="store_true", help="try what was given up once more")
        parser.add_argument(
            "--patience-s", type=float, default=900.0, metavar="S", help="end when nothing was taken for so long (default 900)"
        )
        parser.add_argument(
            "--look-every-s", type=float, default=1.0, metavar="S", help="between looks at how far it is (default 1)"
        )

    def run(self, client: Client, screen: Screen) -> Exit:
        if not is_text(self.folder):
            raise UsageError("--folder: not UTF-8")
        try:
            source = source_of(self.source, Naming(self.folder.strip("/"), self.watched))
            return self._dry(source, screen) if self.dry_run else self._wet(source, client.url, screen)
        except (UnreadableSource, UnusableJournal) as error:
            raise UsageError(str(error)) from None

    def _wet(self, source: Source, url: str, screen: Screen) -> Exit:
        home = self._home(url)
        with Journal(home / "journal.sqlite", f"{source.identity} to {url}") as journal:
            if self.retry:
                screen.say(f"{journal.unpark():,} rows are tried again")
            ended: str | None = "It was interrupted."
            try:
                asyncio.run(self._brought(source, journal, url, screen))
                ended = None
            except Exception as error:
                ended = f"It ended early: {error}"
                raise
            finally:
                report = Report.of(journal, source=self.source, ended=ended, go_on=self._again)
                report.write(home)
                tell(report, home, screen, done="indexed")
        return Exit.NOTHING if report.parked or not report.rows else Exit.DONE

    async def _brought(self, source: Source, journal: Journal, url: str, screen: Screen) -> None:
        options = Options(
            at_once=self.at_once,
            rate=self.rate,
            limit=self.limit,
            wait=not self.no_wait,
            patience_s=self.patience_s,
            look_every_s=self.look_every_s,
            fallback_folder=self.folder.strip("/"),
        )
        with _shown(screen, source.total) as moved:
            async with AsyncClient(url, timeout_s=self.timeout, retrying=Retrying(attempts=1)) as client:
                await Run(client, source, journal, options, moved=moved).run()

    @property
    def _again(self) -> str:
        """The command line that goes on."""
        told = {"--folder": self.folder, "--watched": self.watched, "--state": self.state}
        return " ".join(
            [
                "imagesearch backfill",
                shlex.quote(self.source),
                *(f"{name} {shlex.quote(str(value))}" for name, value in told.items() if value),
            ]
        )

    def _home(self, url: str) -> Path:
        if self.state is not None:
            return self.state
        if not self.source.startswith("s3://") and Path(self.source).is_file():
            return Path(f"{self.source}.backfill")
        named = self.source if self.source.startswith("s3://") else str(Path(self.source).resolve())
        return state_home() / "backfills" / hashlib.sha256(f"{named} to {url}".encode(errors="surrogateescape")).hexdigest()[:16]

    def _dry(self, source: Source, screen: Screen) -> Exit:
        """Nothing is asked of the service, and no journal written."""
        counts: Counter[str] = Counter()
        for batch in source.batches("", most=self.limit):
            for row in batch.rows:
                counts.update(_looked_at(row))
        told = {name: counts[name] for name in ("rows", "to_send", "bytes", "lying", "missing", "bad_rows")}
        if screen.as_json:
            screen.document(told)
        elif screen.for_people:
            screen.table([(name.replace("_", " "), f"{count:,}") for name, count in told.items()], right=(1,))
        else:
            screen.line(*(f"{name}={count}" for name, count in told.items()))
        return Exit.DONE if counts["to_send"] + counts["lying"] else Exit.NOTHING


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError("from 1 on")
    return number


def _looked_at(row: Row) -> dict[str, int]:
    """`bytes` are those of local files."""
    match row.kind:
        case Kind.NONE:
            return {"rows": 1, "bad_rows": 1}
        case Kind.LYING:
            return {"rows": 1, "lying": 1}
        case Kind.FILE:
            try:
                return {"rows": 1, "to_send": 1, "bytes": os.stat(row.place).st_size}  # noqa: PTH116 - a million times
            except (OSError, ValueError):
                return {"rows": 1, "missing": 1}
        case _:
            return {"rows": 1, "to_send": 1}


@contextmanager
def _shown(screen: Screen, total: int | None) -> Iterator[Callable[[Follower], None]]:
    """Bars on stderr where that is a terminal, a line every ten seconds elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    shows = screen.err.is_terminal
    told_at = time.monotonic()
    with Progress(*columns, console=screen.err, transient=True, disable=not shows) as progress:
        sending = progress.add_task("brought", total=total, said="")
        indexing = progress.add_task("indexed", total=total, said="")

        def moved(follower: Follower) -> None:
            nonlocal told_at
            counts, left = follower.journal.counts(), follower.journal.left()
            rows, parked, indexed = (counts.get(name, 0) for name in ("rows", "parked", "indexed"))
            progress.update(sending, completed=rows - left.get("waiting", 0), total=total or rows, said=f"{parked:,} given up")
            progress.update(indexing, completed=indexed, total=total or rows, said=_eta(follower.eta_s))
            if not shows and time.monotonic() - told_at >= _TOLD_EVERY_S:
                told_at = time.monotonic()
                brought = rows - left.get("waiting", 0)
                screen.say(f"{brought:,} of {rows:,} brought, {indexed:,} indexed, {parked:,} given up{_eta(follower.eta_s)}")

        yield moved


def _eta(seconds: float | None) -> str:
    return "" if seconds is None else f", about {max(1, round(seconds / 60)):,} min left"
