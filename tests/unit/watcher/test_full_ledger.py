"""The ledger's disk is full for a while: nothing that was seen is forgotten, and all of it is taken in once there is room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

from structlog.testing import capture_logs

from core.room import storage_full
from core.sql.connection import Connection
from tests.unit.watcher.fakes import House, jpeg, until
from watcher import jobs, locations, scans
from watcher.ledger import FileLedger

P = ParamSpec("P")
R = TypeVar("R")

_WRITES = {locations.admit, locations.forget, locations.refuse, jobs.complete, jobs.postpone, jobs.claim, scans.begin}


class _FullLedger(FileLedger):
    is_full = False

    async def run(self, operation: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        if self.is_full and operation in _WRITES:
            raise storage_full("the ledger")
        return await super().run(operation, *args, **kwargs)


async def test_what_was_seen_while_the_ledger_had_no_room_is_taken_in_afterwards(house: House) -> None:
    house.write("gone.jpg", jpeg("gone"))
    house.options["reconcile_interval_s"] = 3600
    ledger = _FullLedger(house.state)
    with capture_logs() as told:
        async with house.running(ledger):
            await house.agreed()
            ledger.is_full = True
            for number in range(5):
                house.write(f"{number}.jpg", jpeg(f"p{number}"))
            (house.images / "gone.jpg").unlink()
            await until(lambda: any(line["event"] == "intake_paused" for line in told))
            await asyncio.sleep(0.3)
            ledger.is_full = False
            await house.agreed(timeout_s=10)
    assert [line["waiting_for"] for line in told if line["event"] == "intake_paused"] == [
        "the disk that holds the ledger is full"
    ]
    assert [line for line in told if line["event"] == "intake_resumed"]
    assert not [line for line in told if line["log_level"] in {"error", "critical"}]


async def test_a_picture_whose_end_cannot_be_written_down_is_taken_up_again_without_waiting_for_its_lease(house: House) -> None:
    house.options["lease_s"] = 3600
    house.embedder.delay_s = 0.2
    ledger = _FullLedger(house.state)
    async with house.running(ledger):
        house.write("a.jpg", jpeg("a"))
        await until(lambda: house.embedder.in_flight == 1)
        ledger.is_full = True
        await until(lambda: house.embedder.in_flight == 0)
        await asyncio.sleep(0.3)
        ledger.is_full = False
        await house.agreed(timeout_s=10)
    assert house.embedder.analysed.total() == 1, "its points were whole: they are adopted"
