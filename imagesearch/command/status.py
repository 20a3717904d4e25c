"""`imagesearch status`: how far the folder is, what is asked, and what failed."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass

from rich.live import Live
from rich.text import Text

from core.schemas import Failure, FailurePage
from imagesearch.client import Client
from imagesearch.command.exits import Exit
from imagesearch.command.models import changed
from imagesearch.command.screen import Screen, shown
from searchsvc.schemas import StatusAnswer

_WATCH_PAUSE_S = 1.0
_FAILURES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Status:
    watch: bool
    failures: bool

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--watch", action="store_true", help="go on until Ctrl-C; with --json or piped, a line at each change")
        what.add_argument("--failures", action="store_true", help="list the files that are not indexed, and why")

    def run(self, client: Client, screen: Screen) -> Exit:
        if self.failures:
            return _list_failures(client, screen)
        if self.watch:
            _watch(client, screen)
        _show(client.status(), screen)
        return Exit.DONE


def _watch(client: Client, screen: Screen) -> None:
    """Ends by Ctrl-C alone."""
    if screen.for_people:
        with Live(console=screen.out, auto_refresh=False) as live:
            while True:
                live.update(Text("\n".join(_lines(client.status()))), refresh=True)
                time.sleep(_WATCH_PAUSE_S)
    last: StatusAnswer | None = None
    while True:
        status = client.status()
        if status != last:
            _show(status, screen)
        last = status
        time.sleep(_WATCH_PAUSE_S)


def _show(status: StatusAnswer, screen: Screen) -> None:
    if screen.as_json:
        screen.document(status)
    elif screen.for_people:
        for line in _lines(status):
            screen.out.print(line, soft_wrap=True)
    else:
        images = status.images
        counts = {"indexed": images.indexed, "pending": images.pending, "running": images.running, "failed": images.failed}
        screen.line(
            *(f"{state}={count}" for state, count in counts.items()), f"segments={status.segments}", f"model={status.model_state}"
        )


def _lines(status: StatusAnswer) -> list[str]:
    images, watcher = status.images, status.watcher
    waiting = images.pending + images.running
    lines = [f"pictures  {images.indexed:,} indexed, {waiting:,} to come, {images.failed:,} failed; {status.segments:,} regions"]
    if waiting:
        left = "" if status.eta_s is None else f", about {_duration(status.eta_s)} left"
        lines.append(f"speed     {status.rate_per_s:.1f} pictures/s{left}")
    folder = {
        "watching": "watched",
        "folder_missing": "not there",
        "starting": "being read",
        "draining": "being closed",
        "standby": "watched elsewhere",
    }
    lines.append(f"folder    {folder[watcher.state]}{f'; waiting: {watcher.waiting_for}' if watcher.waiting_for else ''}")
    names = ", ".join(space.model_name for space in status.spaces) or "none"
    lines.append(f"models    {names} ({status.model_state}), profile {status.profile or 'unknown'}")
    if status.model_change:
        lines.append(f"change    {changed(status.model_change)}")
    if status.notice:
        lines.append(f"notice    {status.notice}")
    if images.failed:
        lines.append("          why some failed: imagesearch status --failures")
    return [shown(line) for line in lines]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _list_failures(client: Client, screen: Screen) -> Exit:
    """All of them for programs, the latest for people."""
    if screen.for_people:
        page = client.failures(limit=_FAILURES_AT_ONCE)
        screen.table([(failure.path, failure.reason.value, failure.detail or "") for failure in page.failures])
        if page.total > len(page.failures):
            screen.say(f"and {page.total - len(page.failures):,} more", "dim")
    elif screen.as_json:
        failures = tuple(_failures(client))
        screen.document(FailurePage(failures=failures, total=len(failures)))
    else:
        for failure in _failures(client):
            screen.line(failure.path, failure.reason.value, failure.detail or "")
    return Exit.DONE


def _failures(client: Client) -> Iterator[Failure]:
    told = 0
    while (page := client.failures(limit=_FAILURES_AT_ONCE, offset=told)).failures:
        yield from page.failures
        told += len(page.failures)
        if told >= page.total:
            return
