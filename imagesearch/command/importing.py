"""`imagesearch embeddings import`: vectors that were made elsewhere, gone on with after anything."""

from __future__ import annotations

import asyncio
import shlex
import time
from argparse import _ArgumentGroup
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.schemas import Space
from imagesearch.backfill.journal import Journal
from imagesearch.backfill.reporting import Report
from imagesearch.client import AsyncClient, Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.reported import tell
from imagesearch.command.screen import Screen
from imagesearch.importing.running import Import, Options
from imagesearch.importing.sources import Reading, Vectors, vector_files
from imagesearch.steps import Retrying

_TOLD_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Importing:
    place: Path
    model: str | None
    metadata: Path | None
    vector_column: str | None
    watched: str | None
    whole_pictures_alone: bool
    checks: int
    state: Path | None
    at_once: int
    retry: bool
    patience_s: float
    wait_s: float
    timeout: float

    @staticmethod
    def arguments(group: _ArgumentGroup) -> None:
        group.add_argument("--metadata", type=Path, metavar="FILE", help="of a .npy: the table (.parquet, .csv) of its pictures")
        group.add_argument("--vector-column", metavar="NAME", help="of a .parquet (default: vector, embedding, image_embedding)")
        group.add_argument("--watched", metavar="PLACE", help="the watched folder or bucket as the table's paths begin")
        group.add_argument(
            "--whole-pictures-alone", action="store_true", help="the regions are not looked for by the service afterwards"
        )
        group.add_argument("--checks", type=int, default=16, metavar="N", help="pictures compared at first (1 to 32, default 16)")
        group.add_argument("--state", type=Path, metavar="FOLDER", help="where journal and report lie (default: beside it)")
        group.add_argument("--at-once", type=int, default=4, metavar="N", help="requests at once, at most (default 4)")
        group.add_argument("--retry", action="store_true", help="try what was given up once more")
        group.add_argument("--patience-s", type=float, default=900.0, metavar="S", help="end when nothing was taken for so long")
        group.add_argument(
            "--wait-s", type=float, default=600.0, metavar="S", help="wait so long for pictures that are not there (default 600)"
        )

    def run(self, client: Client, screen: Screen) -> Exit:
        """Raises UnreadableSource, UnusableJournal, UsageError."""
        if not 1 <= self.checks <= 32 or self.at_once < 1:
            raise UsageError("--checks takes 1 to 32, --at-once 1 and more")
        reading = Reading(
            self._space(client), stated=self.model is not None, watched=self.watched, vector_column=self.vector_column
        )
        source = Vectors(vector_files(self.place, self.metadata), reading)
        home = self.state or Path(f"{str(self.place).rstrip('/')}.import")
        with Journal(home / "journal.sqlite", f"{source.identity} to {client.url}") as journal:
            if self.retry:
                screen.say(f"{journal.unpark():,} rows are tried again")
            ended: str | None = "It was interrupted."
            try:
                asyncio.run(self._brought(source, journal, client.url, screen))
                ended = None
            except Exception as error:
                ended = f"It ended early: {error}"
                raise
            finally:
                report = Report.of(journal, source=str(self.place), ended=ended, go_on=self._again, what="Import")
                report.write(home)
                tell(report, home, screen, done="found")
        return Exit.NOTHING if report.parked or not report.rows else Exit.DONE

    def _space(self, client: Client) -> Space:
        """Raises UsageError where the service has no such model."""
        spaces = client.status().spaces
        name = (self.model or "").strip().casefold()
        found = [space for space in spaces if not name or name in {space.model_name.casefold(), space.collection.casefold()}]
        if not found:
            known = ", ".join(space.model_name for space in spaces) or "none, its models are away"
            raise UsageError(f"the service has no model {self.model or ''}; it has {known}")
        return found[0]

    async def _brought(self, source: Vectors, journal: Journal, url: str, screen: Screen) -> None:
        options = Options(
            at_once=self.at_once,
            checks=self.checks,
            whole_alone=self.whole_pictures_alone,
            patience_s=self.patience_s,
            wait_s=self.wait_s,
        )
        with _shown(screen, source.total) as moved:
            async with AsyncClient(url, timeout_s=self.timeout, retrying=Retrying(attempts=1)) as client:
                try:
                    await Import(client, source, journal, options, moved=moved).run()
                except BaseExceptionGroup as group:
                    raise _first(group) from None

    @property
    def _again(self) -> str:
        """The command line that goes on."""
        told = {
            "--model": self.model,
            "--metadata": self.metadata,
            "--vector-column": self.vector_column,
            "--watched": self.watched,
            "--state": self.state,
        }
        options = [f"{name} {shlex.quote(str(value))}" for name, value in told.items() if value]
        whole = ["--whole-pictures-alone"] if self.whole_pictures_alone else []
        return " ".join(["imagesearch embeddings import", shlex.quote(str(self.place)), *options, *whole])


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What ended the others."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


@contextmanager
def _shown(screen: Screen, total: int) -> Iterator[Callable[[Journal], None]]:
    """A bar on stderr where that is a terminal, a line every ten seconds elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shows = screen.err.is_terminal
    begun_at = told_at = time.monotonic()
    before: int | None = None
    with Progress(*columns, console=screen.err, transient=True, disable=not shows) as progress:
        task = progress.add_task("imported", total=total)

        def moved(journal: Journal) -> None:
            nonlocal told_at, before
            counts = journal.counts()
            ended, parked = counts.get("indexed", 0), counts.get("parked", 0)
            done = ended + parked
            before = done if before is None else before
            progress.update(task, completed=done)
            if not shows and time.monotonic() - told_at >= _TOLD_EVERY_S:
                told_at = time.monotonic()
                rate = (done - before) / (told_at - begun_at)
                eta = f", about {max(1, round((total - done) / rate / 60)):,} min left" if rate else ""
                screen.say(f"{ended:,} of {total:,} found, {parked:,} given up{eta}")

        yield moved
