"""Events are lost, watches run out, and thousands of files come at once: the folder is compared instead, and it is said."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from core.points import image_point_id, segment_point_id
from core.ports import Match, Where
from tests.e2e.product import PYTHON_STANDALONE, wait_for
from tests.faults.rig import Rig, some_picture
from tests.ram import ram_folder
from tests.unit.watcher.fakes import FakeStore, House, jpeg, matches, until

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_QUEUE_LIMIT = Path("/proc/sys/fs/inotify/max_queued_events")
_FEW_WATCHES = "echo 12 > /proc/sys/user/max_inotify_watches"


def _events(rig: Rig, name: str) -> list[dict[str, object]]:
    return [event for event in rig.log_events() if event["event"] == name]


def test_more_events_than_the_system_keeps_are_made_good_by_a_comparison(rig: Rig, rng: random.Random) -> None:
    """The process is stopped while they come, so that nobody reads them."""
    limit = int(_QUEUE_LIMIT.read_text()) if _QUEUE_LIMIT.exists() else 0
    if not 0 < limit <= 40_000:
        pytest.skip(f"the system keeps {limit} events: too many to overflow")
    rig.environment["RECONCILE_INTERVAL_S"] = "3600"
    for number in range(10):
        rig.add(f"{number}.jpg", some_picture(rng))
    rig.start_and_wait()
    rig.agree()
    assert rig.process is not None
    rig.process.send_signal(signal.SIGSTOP)
    noise = [rig.images / ".noise a", rig.images / ".noise b"]
    for number in range(limit // 2 + 500):  # each comes and goes: two events at least
        noise[number % 2].mkdir()
        noise[number % 2].rmdir()
    rig.add("new/deep/one.jpg", some_picture(rng))
    rig.add("2.jpg", some_picture(rng))
    (rig.images / "0.jpg").unlink()
    (rig.images / "1.jpg").rename(rig.images / "new" / "moved.jpg")
    rig.process.send_signal(signal.SIGCONT)
    wait_for("word of the loss", lambda: _events(rig, "events_lost"), timeout_s=20)
    rig.agree()
    rig.add("new/deep/two.jpg", some_picture(rng))
    rig.agree()
    assert rig.status()["images"]["indexed"] == 11


@pytest.fixture
def limited() -> tuple[str, ...]:
    """A command that starts the product in a user namespace of few watches, so that nobody else misses any."""
    inside = ("unshare", "--user", "--map-root-user", "sh", "-c")
    if shutil.which("unshare") is None or subprocess.run((*inside, _FEW_WATCHES), check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody make a user namespace with limits of its own")
    return (*inside, f'{_FEW_WATCHES} && exec "$@"', "limited", *PYTHON_STANDALONE)


def test_with_too_many_folders_to_watch_it_polls_and_says_what_to_do(
    rig: Rig, rng: random.Random, limited: tuple[str, ...]
) -> None:
    rig.environment |= {"RECONCILE_INTERVAL_S": "3600", "POLL_INTERVAL_S": "0.3"}
    for number in range(8):
        rig.add(f"folder {number}/{number}.jpg", some_picture(rng))
    rig.start_and_wait(limited)
    rig.agree()
    assert rig.status()["watcher"]["observer"] == "inotify"
    for number in range(8, 30):
        rig.add(f"folder {number}/{number}.jpg", some_picture(rng))
    wait_for("word of the limit", lambda: _events(rig, "watch_limit_reached"), timeout_s=20)
    rig.agree()
    assert rig.status()["watcher"]["observer"] == "polling"
    rig.add("folder 29/later.jpg", some_picture(rng))
    (rig.images / "folder 3" / "3.jpg").unlink()
    wait_for("30 indexed", lambda: rig.status()["images"]["indexed"] == 30, timeout_s=20)
    rig.agree()
    told = _events(rig, "watch_limit_reached")
    assert len(told) == 1
    assert "max_user_watches" in str(told[0]["fix"])


class _QuickStore(FakeStore):
    """Finds an image's points by their ids, instead of by looking at all of a hundred thousand."""

    def _matching(self, collection: str, where: Where) -> list[str]:
        held = self.points.get(collection, {})
        for condition in where.must:
            if isinstance(condition, Match) and condition.key == "image_id":
                (image_id,) = condition.any_of
                ids = {image_point_id(str(image_id)), *(segment_point_id(str(image_id), n) for n in range(10))}
                mine = {one: held[one] for one in ids & held.keys()}
                return [one for one, point in mine.items() if matches(point.payload, where)]
        return super()._matching(collection, where)


async def test_thousands_of_files_at_once_are_each_indexed_once() -> None:
    await _burst(3_000, "auto", timeout_s=100)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("mode", ["auto", "polling"])
async def test_fifty_thousand_files_at_once_are_each_indexed_once(mode: str) -> None:
    await _burst(50_000, mode, timeout_s=1800)


async def _burst(count: int, mode: str, *, timeout_s: float) -> None:
    with ram_folder() as root:
        house = House(root)
        house.store = _QuickStore()
        house.options |= {"watch_mode": mode, "poll_interval_s": 0.3, "reconcile_interval_s": 3600, "ingest_concurrency": 16}
        async with house.running():
            await until(lambda: bool(house.store.points))
            for number in range(count):
                house.write(f"{number % 97}/{number}.jpg", jpeg(f"burst {number} 0"))
            indexed = "SELECT count(*) FROM images WHERE state = 'indexed'"
            async with asyncio.timeout(timeout_s):
                while house.ledger_rows(indexed) != [(count,)]:
                    await asyncio.sleep(0.5)
            await house.agreed()
        assert set(house.embedder.analysed.values()) == {1}
