"""watchdog's thread, and how its events reach the event loop: as hints to look at a path, nothing more."""

from __future__ import annotations

import asyncio
import errno
import os
import stat as modes
import warnings
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileModifiedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import CallbackId, InotifyEvent, InotifyFD, Mask, WatchCallback, WatchDescriptor
from watchdog.observers.polling import PollingObserverVFS

from watcher.folder import Folder
from watcher.pictures import ObserverKind

log = structlog.get_logger()

_EVENTS: list[type[FileSystemEvent]] = [
    FileCreatedEvent,
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    DirCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
]
_MOST_WAITING_HINTS = 50_000
_POLLS_TILL_SURE = 2


@dataclass(frozen=True, slots=True)
class Hint:
    """Look at this path. `closed`: a writer has just closed it. `prompt`: what is new there may overtake others."""

    path: str
    closed: bool = False
    prompt: bool = True


class _CountingInotify(InotifyFD):
    """watchdog keeps two things to itself that a watcher must know: events that were lost, and folders that could not be watched."""

    def __init__(self, on_overflow: Callable[[], None], on_limit: Callable[[], None]) -> None:
        super().__init__()
        self._on_overflow = on_overflow
        self._on_limit = on_limit

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        try:
            return super().add_callback(path, mask, callback, id_)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EMFILE}:
                self._on_limit()
            raise

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        if event.is_queue_overflow:
            self._on_overflow()


class _Inotify(BaseObserver):
    """watchdog's inotify observer around an inotify instance of our own."""

    def __init__(self, descriptor: InotifyFD) -> None:
        self._descriptor = descriptor
        descriptor.start()
        super().__init__(InotifyEmitter, inotify_fd=descriptor)

    def on_thread_stop(self) -> None:
        super().on_thread_stop()
        self._descriptor.stop()
        self._descriptor.join()


class FolderObserver(FileSystemEventHandler):
    """Hands hints to `on_hints` on the event loop. `on_loss` asks for a comparison with the disk, because events were lost.

    Where inotify's limits are reached it polls instead: slower, but nothing stays unseen. What a poll found and what the ledger
    holds are seen at different times, and a folder may go and return between two polls, which then tell of nothing: so polling asks
    for one more comparison when two polls have begun since one told of anything or the ledger changed, until nothing changes any more.
    """

    def __init__(
        self,
        folder: Folder,
        *,
        polling: bool,
        poll_interval_s: float,
        on_hints: Callable[[list[Hint]], None],
        on_loss: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._polling = polling
        self._poll_interval_s = poll_interval_s
        self._on_hints = on_hints
        self._on_loss = on_loss
        self._observer: BaseObserver | None = None
        self._waiting: deque[Hint] = deque()
        self._scheduled = False
        self._limit_reached = False
        self._loss_noted = False
        self._polls_left = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    @property
    def kind(self) -> ObserverKind:
        if self._polling or isinstance(self._observer, PollingObserverVFS):
            return "polling"
        return "inotify" if os.name == "posix" and os.uname().sysname == "Linux" else "native"

    @property
    def is_deaf(self) -> bool:
        """Whether it should watch and does not: its folder went away, a thread died, or some subfolders could not be watched."""
        observer = self._observer
        return observer is None or self._limit_reached or not all(emitter.is_alive() for emitter in observer.emitters)

    async def restart(self) -> None:
        """Watch the folder as it is now. Raises OSError when it is not there."""
        await self.stop()
        # watchdog warns when a folder that it watches is moved into one that it has just begun to watch; it then does the right thing
        warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
        if self._limit_reached and not self._polling:
            self._polling = True
            log.warning("watch_limit_reached", now="polling", fix="raise fs.inotify.max_user_watches or set WATCH_MODE=polling")
        self._limit_reached = False
        try:
            await asyncio.to_thread(self._start)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EMFILE}:
                raise
            self._limit_reached = True
            await self.restart()

    async def stop(self) -> None:
        observer, self._observer = self._observer, None
        if observer is not None:
            await asyncio.to_thread(_stop, observer)

    def note_change(self) -> None:
        """The ledger or a poll learned that something came, went or changed."""
        self._polls_left = _POLLS_TILL_SURE

    def _start(self) -> None:
        observer = self._make()
        try:
            events = [*_EVENTS, FileModifiedEvent] if isinstance(observer, PollingObserverVFS) else _EVENTS
            observer.schedule(self, str(self._folder.root), recursive=True, event_filter=events)
            observer.start()
        except BaseException:
            _stop(observer)
            raise
        self._observer = observer

    def _make(self) -> BaseObserver:
        if self._polling:
            return PollingObserverVFS(self._stat, os.scandir, polling_interval=self._poll_interval_s)
        if self.kind == "inotify":
            return _Inotify(_CountingInotify(self._note_loss, self._note_limit))
        return Observer()

    def _stat(self, path: str) -> os.stat_result:
        """Runs on watchdog's thread; of the folder itself at the beginning of each poll."""
        if path == str(self._folder.root):
            self._on_loop(self._note_poll)
        return _status(path)

    def _note_poll(self) -> None:
        if self._polls_left:
            self._polls_left -= 1
            if not self._polls_left:
                self._on_loss()

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Runs on watchdog's thread."""
        for absolute in (event.dest_path, event.src_path):  # where it is now comes before where it was
            path = self._folder.relative(os.fsdecode(absolute)) if absolute else None
            if path:
                self._forward(Hint(path, isinstance(event, FileClosedEvent)))

    def _forward(self, hint: Hint) -> None:
        if len(self._waiting) >= _MOST_WAITING_HINTS:
            self._note_loss()
            return
        self._waiting.append(hint)
        if not self._scheduled:
            self._scheduled = True
            self._on_loop(self._deliver)

    def _note_loss(self) -> None:
        """Once for all that is lost until the loop hears of it."""
        if not self._loss_noted:
            self._loss_noted = True
            self._on_loop(self._tell_loss)

    def _tell_loss(self) -> None:
        self._loss_noted = False
        log.warning("events_lost", instead="the folder is compared with the ledger")
        self._on_loss()

    def _note_limit(self) -> None:
        self._limit_reached = True

    def _on_loop(self, call: Callable[[], None]) -> None:
        """The one place where watchdog's threads meet the event loop."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)

    def _deliver(self) -> None:
        self._scheduled = False
        hints: list[Hint] = []
        while self._waiting:
            hints.append(self._waiting.popleft())
        self._on_hints(hints)
        if self.kind == "polling":  # what came and went between two polls shows in no event
            self._on_loss()
            self.note_change()


def _status(path: str) -> os.stat_result:
    """A symbolic link to a file is that file; one to a folder is no folder, since it may lead out of the watched one, or round in circles."""
    status = os.stat(path)  # noqa: PTH116 - of every file at every poll
    return os.lstat(path) if modes.S_ISDIR(status.st_mode) else status


def _stop(observer: BaseObserver) -> None:
    if observer.is_alive():
        observer.stop()
        observer.join(5)
    else:
        observer.on_thread_stop()
