"""Several processes over one ledger in PostgreSQL: they are killed, cut off and restarted, and so is the database."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psycopg
import pytest

from core.databases import NewerRelease
from core.errors import Unavailable
from core.sql.connection import Connection, Turn
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.postgres import PostgresConnection, connected
from tests.postgres import PostgresServer
from tests.unit.watcher.fakes import FakeEmbedder, House, jpeg, until
from watcher import jobs, locations
from watcher.app import RunningWatcher, running_watcher
from watcher.locations import Admission, FileStat
from watcher.shared_ledger import SharedLedger

ROOT = Path(__file__).parents[2]
STAT = FileStat(10, 1_700_000_000_123_456_789, 7)
CLAIMED = 2000

# --- claims -----------------------------------------------------------------------------------------------------------

CLAIMER = """
import asyncio, sys
from core.sql.place import DatabasePlace
from watcher import jobs
from watcher.jobs import Outcome
from watcher.shared_ledger import SharedLedger

async def main():
    async with SharedLedger(DatabasePlace(sys.argv[1])) as ledger:
        print("ready", flush=True)
        sys.stdin.readline()

        async def claim():
            while (job := await ledger.run(jobs.claim, ledger.now(), 600.0)) is not None:
                assert await ledger.run(jobs.complete, job, Outcome("f", 1, 1, 0, 1), ledger.now())
                print(job.image_id, flush=True)

        await asyncio.gather(*(claim() for _ in range(4)))

asyncio.run(main())
"""


HOLDER = """
import asyncio, sys
from core.sql.place import DatabasePlace
from watcher import jobs
from watcher.shared_ledger import SharedLedger

async def main():
    async with SharedLedger(DatabasePlace(sys.argv[1])) as ledger:
        assert await ledger.run(jobs.claim, ledger.now(), 3.0) is not None
        print("claimed", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def claimer() -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that are ended with the test."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for one in running:
        one.kill()
        one.communicate()


def _start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _said(one: subprocess.Popen[str], expected: str) -> None:
    """It said so, perhaps after lines of the log."""
    assert one.stdout is not None
    assert any(line.strip() == expected for line in iter(one.stdout.readline, ""))


async def _admit(place: DatabasePlace, count: int) -> None:
    async with SharedLedger(place) as ledger:
        admissions = [Admission(f"{n}.jpg", STAT, f"{n:064x}", float(n)) for n in range(count)]
        await ledger.run(locations.admit, admissions, 1.0)


async def test_two_processes_claim_2000_images_and_none_twice(
    database: DatabasePlace, claimer: list[subprocess.Popen[str]]
) -> None:
    await _admit(database, CLAIMED)
    claimer += [_start(CLAIMER, database.url) for _ in range(2)]
    for one in claimer:
        _said(one, "ready")
    ends = [asyncio.to_thread(one.communicate, "go\n", 100) for one in claimer]
    shares = [output.split() for output, _ in await asyncio.gather(*ends)]
    claimed = [image_id for share in shares for image_id in share]
    assert sorted(claimed) == [f"{n:064x}" for n in range(CLAIMED)]
    assert all(len(share) > CLAIMED // 10 for share in shares), [len(share) for share in shares]


async def test_what_a_killed_process_had_claimed_is_taken_up_once_its_lease_ended_and_not_before(database: DatabasePlace) -> None:
    await _admit(database, 1)
    one = _start(HOLDER, database.url)
    await asyncio.to_thread(_said, one, "claimed")
    one.kill()
    one.communicate()
    async with SharedLedger(database) as ledger:
        assert await ledger.run(jobs.expire, ledger.now()) == 0
        assert await ledger.run(jobs.claim, ledger.now(), 60.0) is None
        async with asyncio.timeout(20):
            while not await ledger.run(jobs.expire, ledger.now()):
                await asyncio.sleep(0.05)
        assert await ledger.run(jobs.claim, ledger.now(), 60.0) is not None


async def test_leases_are_told_by_the_databases_clock_whatever_this_machine_thinks(
    database: DatabasePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 86_400)
    async with SharedLedger(database) as ledger:
        assert abs(ledger.now() - real()) < 5


# --- the database goes and comes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGQUIT])
async def test_a_restarted_server_is_unavailable_meanwhile_and_then_served_from_again(
    database: DatabasePlace, postgres: PostgresServer, sign: signal.Signals
) -> None:
    await _admit(database, 1)
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("CHECKPOINT")  # what was committed half a second before a crash may be lost
    async with SharedLedger(DatabasePlace(database.url, connect_timeout_s=2.0)) as ledger:
        await asyncio.gather(*(ledger.run(jobs.has_pending) for _ in range(8)))  # every connection of the pool is made
        await asyncio.to_thread(postgres.stop, sign)
        try:
            async with asyncio.timeout(20):
                with pytest.raises(Unavailable):
                    await ledger.run(jobs.has_pending)
        finally:
            await asyncio.to_thread(postgres.start)
        async with asyncio.timeout(20):
            while True:
                try:
                    assert await ledger.run(jobs.has_pending)
                except Unavailable:
                    continue
                break
        assert all(await asyncio.gather(*(ledger.run(jobs.has_pending) for _ in range(8))))


async def test_a_statement_that_takes_too_long_is_given_up(database: DatabasePlace) -> None:
    async with SharedLedger(DatabasePlace(database.url, timeout_s=0.2)) as ledger:
        with pytest.raises(Unavailable):
            await ledger.run(lambda connection: connection.execute("SELECT pg_sleep(30)").fetchall())
        assert not await ledger.run(jobs.has_pending)


async def test_transactions_that_lock_each_other_out_are_both_done_in_the_end(database: DatabasePlace) -> None:
    def cross(connection: Connection, first: str, second: str) -> None:
        with connection.transaction():
            for path in (first, second):
                connection.execute("UPDATE mounts SET device = device + 1 WHERE path = ?", (path,))
                connection.execute("SELECT pg_sleep(0.1)")

    async with SharedLedger(database) as ledger:
        await ledger.run(locations.record_mounts, {"a": 0, "b": 0})
        await asyncio.gather(ledger.run(cross, "a", "b"), ledger.run(cross, "b", "a"))
        assert await ledger.run(locations.mounts) == {"a": 2, "b": 2}


async def test_what_two_processes_say_of_one_path_is_said_one_after_the_other(database: DatabasePlace) -> None:
    """Mixed, an image could be left without a path and never be an orphan."""
    async with SharedLedger(database) as one, SharedLedger(database) as other:
        for turn in range(20):
            images = [f"{turn:032x}{side:032x}" for side in range(2)]
            admit = [Admission("same.jpg", STAT._replace(inode=turn), image, 1.0) for image in images]
            await asyncio.gather(one.run(locations.admit, admit[:1], 1.0), other.run(locations.admit, admit[1:], 1.0))
        stray = "SELECT count(*) FROM images WHERE orphaned_at IS NULL AND image_id NOT IN (SELECT image_id FROM paths)"
        assert (await one.run(lambda connection: connection.execute(stray).fetchone()))[0] == 0


# --- migrations ---------------------------------------------------------------------------------------------------------

MIGRATOR = """
import sys
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.postgres import connected
print("ready", flush=True)
steps = ["CREATE TABLE one (x INTEGER)", "CREATE TABLE two (x INTEGER); INSERT INTO one SELECT 1; SELECT pg_sleep(60)"]
migrate(connected(DatabasePlace(sys.argv[1]), durable=True), steps, part="test")
"""


async def test_a_migration_that_is_killed_midway_leaves_the_schema_before_it_and_is_gone_on_with(
    database: DatabasePlace, claimer: list[subprocess.Popen[str]]
) -> None:
    claimer.append(_start(MIGRATOR, database.url))
    _said(claimer[0], "ready")
    with connected(database, durable=True) as session:
        await until(lambda: bool(_sleeping(session)), timeout_s=20)
        claimer[0].kill()
        session.execute("SELECT pg_terminate_backend(%s)", (_sleeping(session)[0],))
        steps = ["CREATE TABLE one (x INTEGER)", "CREATE TABLE two (x INTEGER); INSERT INTO one SELECT 1"]
        migrate(session, steps, part="test")
        migrate(session, steps, part="test")
        assert session.execute("SELECT count(*) FROM one").fetchall()[0][0] == 1
        with pytest.raises(NewerRelease, match="newer release"):
            migrate(session, steps[:1], part="test")


def _sleeping(session: psycopg.Connection[object]) -> list[int]:
    rows = session.execute("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()")
    return [row[0] for row in rows]  # type: ignore[index]


async def test_processes_that_start_at_once_bring_the_schema_up_once(database: DatabasePlace) -> None:
    async with AsyncExitStack() as stack:
        ledgers = [SharedLedger(database) for _ in range(6)]
        await asyncio.gather(*(stack.enter_async_context(ledger) for ledger in ledgers))
        assert [await ledger.run(jobs.has_pending) for ledger in ledgers] == [False] * 6


# --- who notices --------------------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path: Path, database: DatabasePlace) -> House:
    house = House(tmp_path)
    house.options |= {"database_url": database.url, "database_connect_timeout_s": 2.0}
    return house


async def _state(watcher: RunningWatcher) -> str:
    try:
        return (await watcher.catalog.status()).watcher.state
    except Unavailable:  # cut off in the middle of it
        return "unknown"


@asynccontextmanager
async def _second(house: House) -> AsyncIterator[tuple[RunningWatcher, FakeEmbedder]]:
    embedder = FakeEmbedder()
    async with running_watcher(house.settings(), embedder, house.store) as watcher:
        yield watcher, embedder


async def test_a_folder_is_followed_with_the_ledger_in_postgresql(house: House) -> None:
    kept = house.write("kept.jpg", jpeg("kept 3"))
    house.write("broken.jpg", jpeg("broken"))
    async with house.running() as watcher:
        await house.agreed()
        house.write("d/new.jpg", jpeg("new"))
        (house.images / "kept.jpg").rename(house.images / "moved.jpg")
        await house.agreed()
        (house.images / "d/new.jpg").unlink()
        house.write("moved.jpg", jpeg("other bytes"))
        await house.agreed(10)
        assert await _state(watcher) == "watching"
        assert house.embedder.analysed[kept] == 1
    house.write("while-away.jpg", jpeg("x"))
    async with house.running():
        await house.agreed()
    assert not list(house.state.glob("ledger*"))


async def test_one_of_two_notices_and_both_ingest(house: House) -> None:
    house.embedder.delay_s = 0.1
    house.options["ingest_concurrency"] = 2
    async with house.running() as first, _second(house) as (other, embedder):
        embedder.delay_s = 0.1
        assert (await _state(other), (await other.catalog.status()).watcher.observer) == ("standby", None)
        ids = [house.write(f"{n}.jpg", jpeg(f"picture {n}")) for n in range(60)]
        await house.agreed(30)
        assert house.embedder.analysed.total() + embedder.analysed.total() == len(set(ids))
        assert min(house.embedder.analysed.total(), embedder.analysed.total()) > 0
        assert await _state(first) == "watching"


async def test_another_takes_the_watch_when_its_holder_is_cut_off_and_the_holder_notices_no_more(
    house: House, database: DatabasePlace
) -> None:
    async with house.running() as first, _second(house) as (other, _):
        house.write("a.jpg", jpeg("a"))
        await house.agreed()
        with psycopg.connect(database.url, autocommit=True) as session:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        async with asyncio.timeout(20):
            while await _state(first) != "standby" and await _state(other) != "watching":
                await asyncio.sleep(0.05)
        house.write("b.jpg", jpeg("b"))
        await house.agreed(20)
        async with asyncio.timeout(20):
            while sorted([await _state(first), await _state(other)]) != ["standby", "watching"]:
                await asyncio.sleep(0.05)


WATCHER = """
import asyncio, sys
from pathlib import Path
from tests.unit.watcher.fakes import House

async def main():
    house = House.__new__(House)
    from tests.unit.watcher.fakes import FakeEmbedder, FakeStore
    house.images, house.state = Path(sys.argv[1]), Path(sys.argv[2])
    house.embedder, house.store, house.options = FakeEmbedder(), FakeStore(), {"database_url": sys.argv[3]}
    async with house.running() as watcher:
        while (await watcher.catalog.status()).watcher.state != "watching":
            await asyncio.sleep(0.05)
        print("watching", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_another_takes_the_watch_within_seconds_when_its_holder_is_killed(
    house: House, database: DatabasePlace, claimer: list[subprocess.Popen[str]]
) -> None:
    claimer.append(_start(WATCHER, str(house.images), str(house.state), database.url))
    await asyncio.to_thread(_said, claimer[0], "watching")
    async with house.running() as other:
        assert await _state(other) == "standby"
        os.kill(claimer[0].pid, signal.SIGKILL)
        killed_at = time.monotonic()
        async with asyncio.timeout(30):
            while await _state(other) != "watching":
                await asyncio.sleep(0.02)
        print(f"took over after {time.monotonic() - killed_at:.1f} s")
        house.write("after.jpg", jpeg("after"))
        await house.agreed()


async def test_a_database_that_restarts_in_the_middle_of_an_ingestion_costs_nothing(
    house: House, postgres: PostgresServer
) -> None:
    house.embedder.delay_s = 0.02
    house.options["lease_s"] = 2.0
    ids = {house.write(f"{n}.jpg", jpeg(f"picture {n}")) for n in range(80)}
    async with house.running():
        await until(lambda: house.embedder.analysed.total() > 10)
        await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
        try:
            await asyncio.sleep(0.5)  # an outage of some length
        finally:
            await asyncio.to_thread(postgres.start)
        house.write("after.jpg", jpeg("after"))
        await house.agreed(60)
    assert ids <= house.embedder.analysed.keys()


async def test_a_picture_in_other_hands_is_waited_for(house: House, database: DatabasePlace) -> None:
    image_id = house.write("a.jpg", jpeg("a"))
    async with SharedLedger(database) as other, other.hold(image_id), house.running():
        await until(lambda: bool(house.ledger_rows("SELECT 1 FROM images WHERE state = 'running'")))
        assert not house.embedder.analysed
        await asyncio.sleep(0.2)
        assert not house.embedder.analysed
        with connected(database, durable=True) as session:
            name = f"imagesearch image {image_id}"
            assert not PostgresConnection(session).try_lock(name)
            session.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid ="
                " (hashtextextended(%s, 0) & 4294967295)::oid",
                (name,),
            )
        await house.agreed()  # the other's connection is lost, and its lock with it


@pytest.mark.parametrize("step", ["try_lock", "unlock"])
async def test_a_picture_whose_holder_is_broken_off_as_the_database_answers_is_given_back(
    database: DatabasePlace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    asked, answers, original = asyncio.Event(), threading.Event(), getattr(PostgresConnection, step)
    loop = asyncio.get_running_loop()

    def slowly(connection: PostgresConnection, name: str) -> object:
        answer = original(connection, name)
        if step == "try_lock" or name.endswith("before"):
            loop.call_soon_threadsafe(asked.set)
            answers.wait(5)
        return answer

    async def hold(ledger: SharedLedger, image_id: str) -> None:
        async with ledger.hold(image_id):
            pass

    async with SharedLedger(database) as one, SharedLedger(database) as other:
        monkeypatch.setattr(PostgresConnection, step, slowly)
        before = asyncio.create_task(hold(one, "before")) if step == "unlock" else None
        holding = asyncio.create_task(hold(one, "b"))
        await asked.wait()
        await asyncio.sleep(0.1)  # by now its own unlocking waits behind that of the one before
        holding.cancel()
        await asyncio.sleep(0.1)
        answers.set()
        await asyncio.wait([task for task in (holding, before) if task is not None])
        monkeypatch.undo()
        async with asyncio.timeout(3):
            await hold(other, "b")


async def test_turns_are_taken_one_after_the_other(database: DatabasePlace) -> None:
    inside = 0

    def alone(connection: Connection) -> None:
        nonlocal inside
        with connection.transaction(turn=Turn.PATHS):
            inside += 1
            assert inside == 1
            connection.execute("SELECT pg_sleep(0.02)")
            inside -= 1

    async with SharedLedger(database) as one, SharedLedger(database) as other:
        await asyncio.gather(*(ledger.run(alone) for ledger in [one, other] * 5))


async def test_who_stands_by_takes_in_and_deletes_for_who_asks_it(house: House) -> None:
    async with house.running(), _second(house) as (other, _):
        assert await _state(other) == "standby"
        image_id = house.write("asked.jpg", jpeg("asked"))
        assert (await other.catalog.notice("asked.jpg")).image_id == image_id
        await house.agreed(20)
        await other.catalog.delete(image_id)
        assert not (house.images / "asked.jpg").exists()
        await house.agreed(20)


# --- all at once --------------------------------------------------------------------------------------------------------


def _touch(house: House, rng: random.Random, number: int) -> None:
    """A file comes, moves, changes or goes."""
    there = sorted(path for path in house.images.rglob("*") if path.is_file())
    match rng.choice(["write", "write", "write", "move", "delete", "replace"]) if there else "write":
        case "write":
            house.write(f"{rng.choice('abc')}/{number}.jpg", jpeg(f"picture {rng.randrange(60)} of {rng.randrange(3)}"))
        case "move":
            rng.choice(there).rename(house.images / f"moved-{rng.randrange(20)}.jpg")
        case "delete":
            rng.choice(there).unlink()
        case _:
            rng.choice(there).write_bytes(jpeg(f"replaced {rng.randrange(1000)}"))


async def _hurt(postgres: PostgresServer, database: DatabasePlace, rng: random.Random) -> None:
    """Some connections are cut, or the server is restarted, or crashes."""
    if rng.random() < 0.85:
        cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'imagesearch' AND random() < %s"
        with psycopg.connect(database.url, autocommit=True) as session:
            session.execute(cut, (rng.random(),))
    else:
        await asyncio.to_thread(postgres.stop, rng.choice([signal.SIGINT, signal.SIGQUIT]))
        await asyncio.sleep(rng.random())
        await asyncio.to_thread(postgres.start)


async def _attacked(house: House, postgres: PostgresServer, database: DatabasePlace, rng: random.Random, seconds: float) -> None:
    """Three watchers over one folder, which agree with it in the end."""
    house.options |= {"lease_s": 2.0, "ingest_concurrency": 4}
    house.embedder.delay_s = 0.005
    async with house.running() as first, _second(house) as (second, _), _second(house) as (third, _):
        ends_at, turn = time.monotonic() + seconds, 0
        while time.monotonic() < ends_at:
            for _ in range(rng.randrange(12)):
                turn += 1
                _touch(house, rng, turn)
            await asyncio.sleep(rng.random() * 0.4)
            await _hurt(postgres, database, rng)
        async with asyncio.timeout(60):
            while sorted([await _state(one) for one in (first, second, third)]) != ["standby", "standby", "watching"]:
                await asyncio.sleep(0.05)
        await house.agreed(60)
    failed = house.ledger_rows("SELECT image_id, reason FROM images WHERE state = 'failed'")
    assert failed == [], "nothing that happened was a picture's fault"


async def test_connections_cut_and_servers_restarted_at_random_cost_no_picture(
    house: House, postgres: PostgresServer, database: DatabasePlace
) -> None:
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    await _attacked(house, postgres, database, random.Random(seed), seconds=6)


@pytest.mark.long
@pytest.mark.parametrize("number", range(10))
async def test_connections_cut_and_servers_restarted_at_random_for_minutes_cost_no_picture(
    number: int, house: House, postgres: PostgresServer, database: DatabasePlace
) -> None:
    seed = f"{os.environ.get('FAULT_SEED') or random.SystemRandom().randrange(10**9)} {number}"
    print(f"FAULT_SEED={seed}")
    await _attacked(house, postgres, database, random.Random(seed), seconds=60)


async def test_connections_that_were_cut_while_idle_cost_nobody_an_error(database: DatabasePlace) -> None:
    async with SharedLedger(database) as ledger:
        for _ in range(2):
            await asyncio.gather(*(ledger.run(jobs.has_pending) for _ in range(8)))
            with psycopg.connect(database.url, autocommit=True) as session:
                session.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'imagesearch'"
                )
            assert await asyncio.gather(*(ledger.run(jobs.has_pending) for _ in range(8))) == [False] * 8
