"""`imagesearch add`: send files and folders, and follow them if asked to."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from imagesearch.client import Client
from imagesearch.command.exits import Exit
from imagesearch.command.screen import Screen
from imagesearch.results import Added, OnProgress
from imagesearch.results import Progress as Step


@dataclass(frozen=True, slots=True)
class Add:
    paths: list[Path]
    folder: str | None
    wait: bool
    wait_s: float | None

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "paths", nargs="+", type=Path, metavar="PATH", help="pictures, and folders with all pictures below them"
        )
        parser.add_argument("--folder", help="where they go, below the watched folder")
        parser.add_argument("--wait", action="store_true", help="until each is indexed or failed")
        parser.add_argument("--wait-s", type=float, metavar="SECONDS", help="the same, but no longer than this")

    @property
    def _waits(self) -> bool:
        return self.wait or self.wait_s is not None

    def run(self, client: Client, screen: Screen) -> Exit:
        with _bars(screen, waits=self._waits) as moved:

            def on_progress(step: Step) -> None:
                if step.latest.ended or not self._waits:
                    _report(step.latest, screen)
                moved(step)

            added = client.add(self.paths, folder=self.folder, wait=self._waits, timeout_s=self.wait_s, on_progress=on_progress)
        late = [one for one in added if self._waits and not one.ended]
        for one in late:
            _report(one, screen)
        _sum_up(added, screen)
        return Exit.NOTHING if late or not added or any(one.failed for one in added) else Exit.DONE


def _report(added: Added, screen: Screen) -> None:
    if screen.as_json:
        screen.document(
            {
                "path": os.fsencode(added.path).decode(errors="replace"),
                "image_id": added.image_id,
                "state": added.state.value,
                "reason": added.reason,
                "detail": added.detail,
            }
        )
    elif not screen.for_people:
        screen.line(added.path, added.state.value, added.image_id or "", added.reason or "")
    elif added.failed:
        screen.say(f"{added.path}: {added.reason}: {added.detail or ''}", "red")


@contextmanager
def _bars(screen: Screen, *, waits: bool) -> Iterator[OnProgress]:
    """Bars on stderr where that is a terminal; nothing elsewhere."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen.err, transient=True, disable=not screen.err.is_terminal) as progress:
        sending = progress.add_task("sending", total=None)
        indexing = progress.add_task("indexing", total=None, visible=waits)

        def moved(step: Step) -> None:
            progress.update(sending, completed=step.sent, total=step.total)
            progress.update(indexing, completed=step.indexed + step.failed, total=step.total)

        yield moved


def _sum_up(added: tuple[Added, ...], screen: Screen) -> None:
    if not screen.for_people:
        return
    if not added:
        screen.say("there are no pictures", "yellow")
        return
    by_state = {state: sum(one.state == state for one in added) for state in dict.fromkeys(one.state for one in added)}
    screen.out.print(", ".join(f"{count:,} {state.value}" for state, count in by_state.items()))
