"""The ledger's thread: every statement runs on it, so that the event loop never waits for the disk."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar

from core.room import refusal_of
from watcher import database

P = ParamSpec("P")
R = TypeVar("R")


class Ledger:
    """Runs the operations of `jobs`, `locations`, `scans` and `views` on the one connection.

    The ledger has a single writer: entering raises `LedgerInUse` while another process works with it, and `NewerRelease`.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._database = database.kept(data_dir)
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._resources = ExitStack()
        self._connection: sqlite3.Connection | None = None

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

    async def run(self, operation: Callable[Concatenate[sqlite3.Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one operation; those that write are one transaction each. Raises StorageFull, or Unavailable when the disk fails."""

        def call() -> R:
            if self._connection is None:
                raise RuntimeError("the ledger is not open")
            try:
                return operation(self._connection, *args, **kwargs)
            except sqlite3.OperationalError as error:
                raise refusal_of(error, "the ledger") or error from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, call)
