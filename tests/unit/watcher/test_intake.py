"""The intake alone: how often it looks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tests.unit.watcher.fakes import jpeg, until
from watcher import locations
from watcher.folder import Folder
from watcher.intake import Intake, IntakeEvents
from watcher.ledger import FileLedger
from watcher.locations import FileStat
from watcher.observer import Hint
from watcher.probe import Absence, Seen
from watcher.stability import SettleRules, Writing
from watcher.watched_folder import WatchedFolder


class BeingWritten(WatchedFolder):
    """A folder whose files somebody always has open."""

    def __init__(self, root: Path) -> None:
        super().__init__(Folder(root), max_image_bytes=10_000)
        self.looked = 0

    def lost(self, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
        return set()

    def looks(self, files: Sequence[tuple[str, FileStat]], *, now: float) -> list[Seen | Absence]:
        self.looked += len(files)
        return [Seen(stat, Writing.OPEN, complete=None, image=False, age_s=0.0) for _, stat in files]


async def test_a_file_that_is_closed_again_and_again_while_another_writes_to_it_is_looked_at_no_more_often_for_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "download.log").write_bytes(b"one line more")
    pictures = BeingWritten(tmp_path / "images")

    async def no_mounts() -> set[str]:
        return set()

    events = IntakeEvents(lambda: None, lambda: None, lambda _: None, lambda _: None, no_mounts)
    with ThreadPoolExecutor(2) as readers:
        async with FileLedger(tmp_path) as ledger:
            rules = SettleRules(agree_s=0.01, slowest_look_s=0.1)
            intake = Intake(pictures, ledger, readers, rules=rules, max_image_bytes=1000, events=events)
            running = asyncio.create_task(intake.run())
            for count in range(40):
                intake.take([Hint("download.log", closed=True)])
                await until(lambda: pictures.looked > count)  # noqa: B023
            await asyncio.sleep(0.2)
            before = pictures.looked
            await asyncio.sleep(1.0)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
    assert pictures.looked - before <= 12


class WithABadPath(WatchedFolder):
    """One of its paths is more than anybody thought of."""

    def __init__(self, root: Path) -> None:
        super().__init__(Folder(root), max_image_bytes=10_000)

    def lost(self, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
        return set()

    def stats(self, paths: Sequence[str]) -> list[FileStat | Absence]:
        if "bad.jpg" in paths:
            raise RuntimeError("nobody thought of this path")
        return super().stats(paths)


async def test_a_path_that_nobody_thought_of_keeps_no_other_from_being_taken(tmp_path: Path) -> None:
    names = ["bad.jpg", *(f"{number}.jpg" for number in range(5))]
    (tmp_path / "images").mkdir()
    for name in names:
        (tmp_path / "images" / name).write_bytes(jpeg(name))

    async def no_mounts() -> set[str]:
        return set()

    admitted: list[None] = []
    events = IntakeEvents(lambda: admitted.append(None), lambda: None, lambda _: None, lambda _: None, no_mounts)
    with ThreadPoolExecutor(2) as readers:
        async with FileLedger(tmp_path) as ledger:
            rules = SettleRules(settle_s=0.0, agree_s=0.01)
            pictures = WithABadPath(tmp_path / "images")
            intake = Intake(pictures, ledger, readers, rules=rules, max_image_bytes=10_000, events=events)
            running = asyncio.create_task(intake.run())
            intake.take([Hint(name, closed=True) for name in names])
            async with asyncio.timeout(5):
                while len(await ledger.run(locations.known, names)) < 5:
                    await asyncio.sleep(0.01)
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
