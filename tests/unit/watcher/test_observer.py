"""The polling observer: what a poll cannot tell is asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from watcher.folder import Folder
from watcher.observer import FolderObserver, Hint

_POLL_S = 0.02


class Polled(FolderObserver):
    """Counts its own polls, so that a test waits for polls and not for time."""

    def __init__(self, folder: Path) -> None:
        self.hints: list[Hint] = []
        self.comparisons = 0
        self.polls = 0
        self.turned = asyncio.Event()
        super().__init__(
            Folder(folder), polling=True, poll_interval_s=_POLL_S, on_hints=self.hints.extend, on_loss=self._note_comparison
        )

    def _note_comparison(self) -> None:
        self.comparisons += 1

    def _note_poll(self) -> None:
        super()._note_poll()
        self.polls += 1
        self.turned.set()

    async def turns(self, count: int) -> None:
        """Wait until so many further polls have begun."""
        last = self.polls + count
        while self.polls < last:
            self.turned.clear()
            await self.turned.wait()


@pytest.fixture
async def observer(tmp_path: Path) -> AsyncIterator[Polled]:
    async with Polled(tmp_path) as observer, asyncio.timeout(20):
        await observer.restart()
        await observer.turns(2)
        yield observer


async def _expected(until: Callable[[], bool], turn: Callable[[int], Awaitable[None]]) -> None:
    while not until():
        await turn(1)


async def test_a_folder_that_does_not_change_is_never_compared(observer: Polled) -> None:
    await observer.turns(5)
    assert (observer.hints, observer.comparisons) == ([], 0)


async def test_what_a_poll_tells_is_compared_at_once_and_once_more_when_two_polls_have_begun(
    observer: Polled, tmp_path: Path
) -> None:
    outside = tmp_path.with_name(f"{tmp_path.name} outside.jpg")
    outside.write_bytes(b"a")
    outside.rename(tmp_path / "a.jpg")  # no poll finds it half written
    await _expected(lambda: observer.comparisons == 2, observer.turns)
    assert {hint.path for hint in observer.hints} == {"a.jpg"}
    await observer.turns(5)
    assert observer.comparisons == 2


async def test_what_the_ledger_learned_is_compared_once_more_since_a_file_that_left_and_returned_shows_in_no_poll(
    observer: Polled,
) -> None:
    observer.note_change()
    await observer.turns(2)
    assert observer.comparisons == 1
    await observer.turns(5)
    assert (observer.hints, observer.comparisons) == ([], 1)


async def test_changes_that_go_on_put_the_comparison_off_only_till_they_end(observer: Polled) -> None:
    for _ in range(3):
        observer.note_change()
        await observer.turns(1)
    assert observer.comparisons == 0
    await observer.turns(1)
    assert observer.comparisons == 1
