"""The ledger as the watcher's parts have it, and its home in SQLite: a thread of its own, so that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Protocol, Self, TypeVar

from core.room import refusal_of
from core.settings import FolderSettings
from core.sql.connection import Connection, SqliteConnection
from watcher import database

P = ParamSpec("P")
R = TypeVar("R")


class Operations(Protocol):
    """Runs the operations of `jobs`, `locations`, `scans`, `views` and `editions`."""

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one operation; those that write are one transaction each. Raises Unavailable, StorageFull."""
        ...

    def now(self) -> float:
        """Unix seconds, by the clock of all who share the ledger: what leases and pauses are told in."""
        ...


@dataclass(frozen=True, slots=True)
class Watch:
    """The right to notice. Its operations fail once it is lost, so that nobody notices by a right that another has by now."""

    ledger: Operations
    lost: asyncio.Event


class Ledger(Operations, Protocol):
    """An async context manager; entering raises NewerRelease, and LedgerInUse where one process has it for itself."""

    @property
    def is_shared(self) -> bool:
        """Whether other processes claim and ingest as well."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def watch(self) -> AbstractAsyncContextManager[Watch | None]:
        """Take the watch for as long as the context lasts; None while another process has it. Raises Unavailable."""
        ...

    def hold(self, image_id: str) -> AbstractAsyncContextManager[None]:
        """Keep other processes from the image's points. Raises Unavailable."""
        ...


class FileLedger:
    """In SQLite, which has a single writer: entering raises `LedgerInUse` while another process works with it."""

    is_shared = False

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._database = database.kept(data_dir)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._resources = ExitStack()
        self._connection: SqliteConnection | None = None

    async def __aenter__(self) -> Self:
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._open)
        except BaseException:
            self._release()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        finally:
            self._release()

    def _release(self) -> None:
        """The last operation ends before another process may have the ledger."""
        self._executor.shutdown()
        self._resources.close()

    def _open(self) -> None:
        self._resources.enter_context(database.lock(self._data_dir))
        self._connection = database.opened(self._database)

    def _close(self) -> None:
        if self._connection is not None:
            self._database.close(self._connection)
            self._connection = None

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        def call() -> R:
            if self._connection is None:
                raise RuntimeError("the ledger is not open")
            try:
                return operation(self._connection, *args, **kwargs)
            except sqlite3.OperationalError as error:
                raise refusal_of(error, "the ledger") or error from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def now(self) -> float:
        return time.time()

    def watch(self) -> AbstractAsyncContextManager[Watch]:
        return nullcontext(Watch(self, asyncio.Event()))

    def hold(self, image_id: str) -> AbstractAsyncContextManager[None]:
        return nullcontext()


def ledger_of(settings: FolderSettings) -> Ledger:
    """Where the settings have it; any process may open it so. Raises DriverMissing, UnreadableUrl."""
    place = settings.database
    if place is None:
        return FileLedger(settings.data_dir)
    from watcher.shared_ledger import SharedLedger  # noqa: PLC0415 - its package is there only where it is wanted

    return SharedLedger(place)
