"""A comparison of folder and ledger that fails is no comparison."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import pytest
from structlog.testing import capture_logs

from core.sql.connection import Connection
from tests.unit.watcher.fakes import House, jpeg, until
from watcher import folder, scans
from watcher.ledger import FileLedger

P = ParamSpec("P")
R = TypeVar("R")


class _FailingLedger(FileLedger):
    failures_left = 2

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if operation is scans.mark and self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("nobody thought of this")
        return await super().run(operation, *args, **kwargs)


async def test_a_scan_that_fails_is_tried_again_after_growing_pauses_and_told_each_time(house: House) -> None:
    house.write("before.jpg", jpeg("before"))
    house.options["reconcile_interval_s"] = 3600
    with capture_logs() as told:
        async with house.running(_FailingLedger(house.state)) as watcher:
            await until(lambda: any(line["event"] == "scan_failed" for line in told))
            status = (await watcher.catalog.status()).watcher
            assert (status.state, status.last_reconcile_at) == ("starting", None)
            await house.agreed(timeout_s=15)
            await until(lambda: any(line["event"] == "folder_scanned" for line in told))
    assert [(line["folder"], line["retry_in_s"]) for line in told if line["event"] == "scan_failed"] == [(".", 1.0), (".", 2.0)]


async def test_a_folder_that_no_descriptor_is_left_for_is_looked_into_when_one_is(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.write("a/b.jpg", jpeg("b"))
    house.options["reconcile_interval_s"] = 3600
    scandir, refused = os.scandir, 0

    def wanting(place: str | Path) -> object:
        nonlocal refused
        if threading.current_thread() is not threading.main_thread() and str(place).endswith("/images/a") and refused < 2:
            refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return scandir(place)

    monkeypatch.setattr(folder.os, "scandir", wanting)
    async with house.running():
        await house.agreed(timeout_s=15)
    assert refused == 2
