"""A comparison of folder and ledger that fails is no comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from structlog.testing import capture_logs

from core.sql.connection import Connection
from tests.unit.watcher.fakes import House, jpeg, until
from watcher import scans
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
