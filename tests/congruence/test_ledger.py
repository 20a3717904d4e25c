"""One contract over both homes of the ledger: SQLite and PostgreSQL answer every operation alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from core.errors import Conflict, Reason
from core.points import LAYOUT
from core.schemas import EngineState, ImageState, ModelsInfo, Space
from core.sql.connection import Connection
from core.sql.migrations import migrate
from core.sql.place import DatabasePlace
from core.sql.postgres import PostgresConnection, connected
from tests.unit.watcher.test_ledger import LedgerMachine
from watcher import editions, jobs, locations, ranges, scans, views
from watcher.database import postgres_steps
from watcher.jobs import Outcome
from watcher.ledger import FileLedger, Ledger
from watcher.locations import Admission, FileStat
from watcher.shared_ledger import SharedLedger
from watcher.views import Expected, Settled

STAT = FileStat(2**40, 1_700_000_000_123_456_789, 2**53)
A, B, C = ("a" * 64, "b" * 64, "c" * 64)


@pytest.fixture(params=["sqlite", "postgresql"])
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ledger]:
    home: Ledger = FileLedger(tmp_path) if request.param == "sqlite" else SharedLedger(request.getfixturevalue("database"))
    async with home:
        yield home


async def _admit(ledger: Ledger, *files: tuple[str, str], priority: int = 0, at: float = 100.0) -> None:
    await ledger.run(locations.admit, [Admission(path, STAT, image, at, priority) for path, image in files], at)


def _models(fingerprint: str) -> ModelsInfo:
    space = Space(collection=f"clip-{fingerprint}", model_name="CLIP", dim=4, text=True)
    return ModelsInfo(state=EngineState.READY, profile="p", requested_profile="p", spaces=(space,), fingerprint=fingerprint)


async def _index(ledger: Ledger, now: float, fingerprint: str = "f", segments: int = 2) -> str:
    job = await ledger.run(jobs.claim, now, 60.0)
    assert job is not None
    version = (await ledger.run(jobs.places, job.image_id)).version
    assert await ledger.run(jobs.complete, job, Outcome(fingerprint, 4, 3, segments, version), now)
    return job.image_id


async def _state(ledger: Ledger, image_id: str) -> ImageState | None:
    record = await ledger.run(views.image, image_id)
    return record.state if record else None


async def test_what_is_admitted_is_known_claimed_by_priority_and_shown(ledger: Ledger) -> None:
    await _admit(ledger, ("old.jpg", A), at=1.5)
    await _admit(ledger, ("d/new.jpg", B), ("d/twin.jpg", B), priority=2, at=2.5)
    known = await ledger.run(locations.known, ["old.jpg", "d/new.jpg", "nobody's.jpg", 'it\'s "this"?.jpg', "ü:x%s.jpg"])
    assert {path: (found.image_id, found.stat) for path, found in known.items()} == {"old.jpg": (A, STAT), "d/new.jpg": (B, STAT)}
    first, second = [await ledger.run(jobs.claim, 10.0, 60.0) for _ in range(2)]
    assert first is not None
    assert second is not None
    assert (first.image_id, first.noticed_at, first.was_indexed, second.image_id) == (B, 2.5, False, A)
    assert await ledger.run(jobs.claim, 10.0, 60.0) is None
    assert (await ledger.run(jobs.places, B)).paths == ("d/new.jpg", "d/twin.jpg")
    record = await ledger.run(views.image, B)
    assert record is not None
    assert (record.state, record.paths, record.bytes, record.attempts) == (
        ImageState.RUNNING,
        ("d/new.jpg", "d/twin.jpg"),
        STAT.size,
        0,
    )


async def test_an_image_is_claimed_by_name_once_and_never_without_a_path(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A), ("b.jpg", B))
    assert await ledger.run(jobs.claim_image, A, 10.0, 60.0) is not None
    assert await ledger.run(jobs.claim_image, A, 10.0, 60.0) is None
    assert await ledger.run(jobs.claim_image, C, 10.0, 60.0) is None
    assert await ledger.run(locations.forget, ["b.jpg"], 11.0) == 1
    assert await ledger.run(jobs.claim_image, B, 12.0, 60.0) is None


async def test_an_ended_lease_is_given_back_and_its_old_holder_has_no_say(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A), ("b.jpg", B))
    jobs_held = [await ledger.run(jobs.claim, 100.0, 60.0) for _ in range(2)]
    kept, lost = [job for job in jobs_held if job is not None]
    await ledger.run(jobs.renew, [kept.lease_id], 300.0)
    assert await ledger.run(jobs.expire, 159.0) == 0
    assert await ledger.run(jobs.expire, 161.0) == 1
    assert not await ledger.run(jobs.complete, lost, Outcome("f", 1, 1, 0, 1), 162.0)
    assert not await ledger.run(jobs.reject, lost, Reason.CORRUPT, "why", fingerprint="f", now=162.0)
    assert not await ledger.run(jobs.postpone, lost, 162.0)
    again = await ledger.run(jobs.claim, 163.0, 60.0)
    assert again is not None
    assert again.image_id == lost.image_id
    await ledger.run(jobs.give_back, [again.lease_id, "nobody's"])
    assert await _state(ledger, lost.image_id) == ImageState.PENDING
    assert await _state(ledger, kept.image_id) == ImageState.RUNNING
    assert await ledger.run(jobs.recover) == 1


async def test_attempts_crashes_and_refusals_are_told(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A))
    job = await ledger.run(jobs.claim, 100.0, 60.0)
    assert job is not None
    assert await ledger.run(jobs.count_attempt, job, 130.0, crashed=True)
    assert await ledger.run(jobs.has_pending)
    assert await ledger.run(jobs.next_due) == 130.0
    assert await ledger.run(jobs.claim, 129.0, 60.0) is None
    await _admit(ledger, ("again.jpg", A), priority=2)  # what crashed a model overtakes nothing
    job = await ledger.run(jobs.claim, 131.0, 60.0)
    assert job is not None
    assert (job.attempts, job.crashes) == (1, 1)
    assert await ledger.run(jobs.reject, job, Reason.CORRUPT, "its end is missing", fingerprint="f", now=132.0)
    assert await ledger.run(locations.refuse, "empty.jpg", STAT, Reason.EMPTY_FILE, "empty", now=140.0)
    assert not await ledger.run(locations.refuse, "empty.jpg", STAT, Reason.EMPTY_FILE, "empty", now=141.0)
    assert await ledger.run(locations.refuse, "notes.txt", STAT, Reason.IGNORED, "no picture", now=150.0)
    page = await ledger.run(views.failures, limit=10, offset=0, ignored=False)
    assert [(one.path, one.reason, one.detail) for one in page.failures] == [
        ("empty.jpg", Reason.EMPTY_FILE, "empty"),
        ("a.jpg", Reason.CORRUPT, "its end is missing"),
        ("again.jpg", Reason.CORRUPT, "its end is missing"),
    ]
    assert (await ledger.run(views.failures, limit=1, offset=3, ignored=True)).total == 4
    totals = await ledger.run(views.totals)
    assert totals.images.model_dump() == {"pending": 0, "running": 0, "indexed": 0, "failed": 2}


@pytest.mark.parametrize("observer_first", [True, False])
async def test_what_a_backfill_brings_overtakes_nothing_whatever_the_observer_sees_of_it(
    ledger: Ledger, observer_first: bool
) -> None:
    told = Admission("many.jpg", STAT, A, 1.0, 0, backfill=True)
    seen = Admission("many.jpg", STAT, A, 1.0, 1)
    for admission in (seen, told) if observer_first else (told, seen):
        await ledger.run(locations.admit, [admission], 1.0)
    await _admit(ledger, ("single.jpg", B), priority=1, at=2.0)
    first = await ledger.run(jobs.claim, 3.0, 60.0)
    assert first is not None
    assert first.image_id == B
    await _admit(ledger, ("many.jpg", A), priority=2, at=3.0)  # somebody asks for the very file
    await _admit(ledger, ("other.jpg", C), priority=1, at=3.0)
    second = await ledger.run(jobs.claim, 4.0, 60.0)
    assert second is not None
    assert second.image_id == A


async def test_states_are_told_of_many_images_and_paths_at_once(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A), ("d/ü 'x'.jpg", B))
    assert await ledger.run(locations.refuse, "empty.jpg", STAT, Reason.EMPTY_FILE, "empty", now=1.0)
    indexed = await _index(ledger, 200.0)
    told = {one.image_id: one.state for one in await ledger.run(views.image_states, [A, B, C, "no id"])}
    assert told == {A: ImageState.PENDING, B: ImageState.PENDING} | {indexed: ImageState.INDEXED}
    lying = {one.path: one for one in await ledger.run(views.path_states, ["a.jpg", "d/ü 'x'.jpg", "empty.jpg", "no.jpg"])}
    assert {path: (one.image_id, one.reason) for path, one in lying.items()} == {
        "a.jpg": (A, None),
        "d/ü 'x'.jpg": (B, None),
        "empty.jpg": (None, Reason.EMPTY_FILE),
    }
    assert (lying["empty.jpg"].state, lying["empty.jpg"].detail) == (ImageState.FAILED, "empty")
    await ledger.run(locations.forget, ["a.jpg"], 300.0)
    assert [one.image_id for one in await ledger.run(views.image_states, [A, B])] == [B]


async def test_few_new_pictures_overtake_and_a_copied_tree_does_not(ledger: Ledger) -> None:
    await _admit(ledger, *[(f"new{n}.jpg", f"{n:064x}") for n in range(40)], priority=1)

    def prompt(connection: Connection) -> int:
        count: int = connection.execute("SELECT count(*) FROM images WHERE priority = 1").fetchone()[0]
        return count

    assert await ledger.run(prompt) == 32


async def test_moves_and_deletions_are_followed_to_their_end(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A))
    await _index(ledger, 100.0)
    assert await ledger.run(jobs.moved, 10) == []
    await _admit(ledger, ("b.jpg", A))
    assert await ledger.run(locations.forget, ["a.jpg", "unknown.jpg"], 101.0) == 1
    assert await ledger.run(jobs.moved, 10) == [A]
    places = await ledger.run(jobs.places, A)
    assert places.paths == ("b.jpg",)
    await ledger.run(jobs.mark_moved, A, places.version)
    assert await ledger.run(jobs.moved, 10) == []
    await ledger.run(locations.forget, ["b.jpg"], 102.0)
    assert await ledger.run(views.image, A) is None
    assert await ledger.run(jobs.next_orphan) == 102.0
    assert await ledger.run(jobs.orphans, 101.9, 10) == []
    assert await ledger.run(jobs.orphans, 102.0, 10) == [A]
    assert await ledger.run(jobs.condemn, A)
    await _admit(ledger, ("back.jpg", A))  # it turns up before the row has gone
    assert not await ledger.run(jobs.remove, A)
    await ledger.run(locations.forget, ["back.jpg"], 103.0)
    assert await ledger.run(jobs.remove, A)
    assert await ledger.run(views.states, [A]) == {}


async def test_what_lies_at_a_path_is_replaced_and_the_other_image_is_an_orphan(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A))
    await _admit(ledger, ("a.jpg", B), at=105.0)
    assert await ledger.run(jobs.orphans, 105.0, 10) == [A]
    assert await ledger.run(locations.refuse, "a.jpg", STAT, Reason.EMPTY_FILE, "empty", now=106.0)
    assert await ledger.run(jobs.orphans, 106.0, 10) == [A, B]


async def test_twins_are_known_by_inode_size_and_time(ledger: Ledger) -> None:
    coarse = FileStat(5, 2_000_000_000, 10)
    await _admit(ledger, ("x.jpg", A))
    await ledger.run(locations.admit, [Admission("y.jpg", coarse, B, 1.0)], 1.0)
    files = [("new.jpg", STAT), ("z/y.jpg", coarse), ("other.jpg", coarse), ("more.jpg", STAT._replace(inode=1))]
    assert await ledger.run(locations.twins, files) == {"new.jpg": A, "z/y.jpg": B}


async def test_all_names_of_a_file_are_known_by_its_inode(ledger: Ledger) -> None:
    far = FileStat(5, 3, 2**63 - 1)
    await _admit(ledger, ("x.jpg", A), ("y.jpg", A))
    await ledger.run(locations.refuse, "far.jpg", far, Reason.EMPTY_FILE, "empty", now=1.0)
    await ledger.run(locations.refuse, "none.jpg", FileStat(5, 3, 0), Reason.EMPTY_FILE, "empty", now=1.0)
    assert await ledger.run(locations.names_of, {STAT.inode, 1, 0}) == {"x.jpg": STAT, "y.jpg": STAT}
    assert await ledger.run(locations.names_of, {far.inode}) == {"far.jpg": far}
    assert await ledger.run(locations.names_of, {0}) == {}


async def test_a_doubted_path_is_changed_for_every_scan_and_nobodys_twin_until_it_is_admitted_anew(ledger: Ledger) -> None:
    await _admit(ledger, ("x.jpg", A), ("y.jpg", B))
    async with ledger.watch() as watch:
        assert watch is not None
        await watch.ledger.run(scans.begin)
        await watch.ledger.run(scans.mark, [("x.jpg", STAT), ("y.jpg", STAT)])
        await ledger.run(locations.doubt, "x.jpg", C)  # which does not lie there any more
        assert await watch.ledger.run(scans.changed, "", 10) == []
        assert await ledger.run(locations.twins, [("z.jpg", STAT)]) == {}
        await ledger.run(locations.doubt, "x.jpg", A)
        assert await watch.ledger.run(scans.changed, "", 10) == ["x.jpg"]
        assert await ledger.run(locations.twins, [("z.jpg", STAT)]) == {"z.jpg": B}
        await _admit(ledger, ("x.jpg", A))
        assert await watch.ledger.run(scans.changed, "", 10) == []
    assert (await ledger.run(jobs.places, A)).version == 1


async def test_a_scan_tells_new_changed_and_vanished_paths_in_byte_order(ledger: Ledger) -> None:
    names = ["d/Z.jpg", "d/a.jpg", "d/z.jpg", "d/ä.jpg", "d/\uef80x.jpg", "d/😀.jpg", "d-e/x.jpg", "d0.jpg"]
    await _admit(ledger, *[(name, A) for name in names])
    async with ledger.watch() as watch:
        assert watch is not None
        for _ in range(2):  # a scan that was broken off leaves nothing behind
            await watch.ledger.run(scans.begin)
            await watch.ledger.run(scans.mark, [("d/new.jpg", STAT), ("d/a.jpg", STAT)])
        await watch.ledger.run(scans.mark, [("d/a.jpg", STAT._replace(size=1))])
        assert await watch.ledger.run(scans.changed, "", 10) == ["d/a.jpg", "d/new.jpg"]
        assert await watch.ledger.run(scans.changed, "d/a.jpg", 10) == ["d/new.jpg"]
        below = sorted((name for name in names if name.startswith("d/") and name != "d/a.jpg"), key=str.encode)
        assert await watch.ledger.run(scans.vanished, "d", "", 10) == below
        assert await watch.ledger.run(scans.vanished, "d", below[1], 2) == below[2:4]
        assert len(await watch.ledger.run(scans.vanished, "", "", 10)) == len(names) - 1
        await watch.ledger.run(scans.end)
    assert await ledger.run(locations.has_below, "d-e")
    assert not await ledger.run(locations.has_below, "d-")
    places = ["d", "d-e", "d-", "d/a.jpg", "d0.jpg", "D", "", 'it\'s "this"?', "😀"]
    assert sorted(await ledger.run(locations.folders, places)) == ["d", "d-e"]
    await ledger.run(locations.record_mounts, {"": 2**60, "d": 7})
    await ledger.run(locations.record_mounts, {"": 2**60})
    assert await ledger.run(locations.mounts) == {"": 2**60}


async def test_what_is_expected_is_told_by_ranges_of_ids_and_the_place_of_a_comparison_is_kept(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A), ("b.jpg", B))
    for _ in range(2):
        await _index(ledger, 100.0, segments=1)
    expected = await ledger.run(views.expected, "", 10)
    assert expected == [Expected(A, 1), Expected(B, 1)]
    assert await ledger.run(views.expected, A, 10) == [Expected(B, 1)]
    assert await ledger.run(views.states, [A, C]) == {A: Expected(A, 1)}
    assert await ledger.run(ranges.expected, "") == expected
    assert await ledger.run(ranges.expected, "aa") == expected[:1]
    assert await ledger.run(ranges.settled, "b") == Settled(1, 1)
    assert await ledger.run(ranges.settled, "c") == Settled(0, 0)
    assert await ledger.run(views.settled) == Settled(2, 2)
    for compared_to in ("a", "b"):
        await ledger.run(ranges.note, "clip", compared_to)
    assert (await ledger.run(ranges.compared_to, "clip"), await ledger.run(ranges.compared_to, "resnet")) == ("b", "")
    await ledger.run(ranges.forget, "clip")
    assert await ledger.run(ranges.compared_to, "clip") == ""
    assert await ledger.run(jobs.requeue, A)
    assert not await ledger.run(jobs.requeue, A)


async def test_other_models_take_over_when_they_cover_all_and_may_be_reverted(ledger: Ledger) -> None:
    assert await ledger.run(editions.course) is None
    course, again = await ledger.run(editions.meet, _models("f"), 1.0)
    assert (course.searched.fingerprint, course.is_changing, again) == ("f", False, 0)
    await _admit(ledger, ("a.jpg", A), ("b.jpg", B))
    for _ in range(2):
        await _index(ledger, 100.0)
    course, again = await ledger.run(editions.meet, _models("g"), 2.0)
    assert (course.target.collections, course.is_changing, course.stopped, again) == (("clip-g",), True, False, 2)
    totals = await ledger.run(views.totals)
    assert (totals.images.indexed, totals.unsettled, totals.segments, totals.oldest_pending_at) == (2, 2, 4, None)
    assert await _state(ledger, A) == ImageState.INDEXED
    assert not await ledger.run(editions.switch)
    await ledger.run(editions.stop)
    stopped = await ledger.run(editions.course)
    assert stopped is not None
    assert stopped.stopped
    assert await ledger.run(jobs.claim, 200.0, 60.0, new_alone=True) is None
    assert not await ledger.run(jobs.has_pending, new_alone=True)
    assert await ledger.run(jobs.next_due, new_alone=True) is None
    await ledger.run(editions.resume)
    assert {await _index(ledger, 201.0, "g") for _ in range(2)} == {A, B}
    progress = await ledger.run(editions.progress)
    assert (progress.done, progress.left) == (2, 0)
    assert await ledger.run(editions.is_covered)
    assert await ledger.run(editions.switch)
    assert await ledger.run(editions.abandoned) == []
    await ledger.run(editions.revert, "g")
    reverted = await ledger.run(editions.course)
    assert reverted is not None
    assert (reverted.target.fingerprint, reverted.declined) == ("f", "g")
    assert (await ledger.run(editions.meet, _models("g"), 3.0))[0].target.fingerprint == "f"
    assert {await _index(ledger, 202.0, "f") for _ in range(2)} == {A, B}
    assert await ledger.run(editions.switch)
    await ledger.run(editions.drop)
    assert [edition.fingerprint for edition in await ledger.run(editions.abandoned)] == ["g"]
    await ledger.run(editions.forget, "f")
    await ledger.run(editions.forget, "g")
    with pytest.raises(Conflict):
        await ledger.run(editions.revert, "f")
    with pytest.raises(Conflict):
        await ledger.run(editions.stop)
    await ledger.run(editions.release)


async def test_what_earlier_layouts_lack_is_queued_again(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A))
    await _index(ledger, 100.0)
    assert await ledger.run(jobs.requeue_others, "f") == 0
    await ledger.run(lambda connection: connection.execute("UPDATE images SET layout = ?", (LAYOUT - 1,)))
    assert await ledger.run(jobs.requeue_others, "f") == 1


async def test_what_lies_too_far_ahead_is_due_now(ledger: Ledger) -> None:
    await _admit(ledger, ("a.jpg", A), ("b.jpg", B))
    job = await ledger.run(jobs.claim, 100.0, 60.0)
    assert job is not None
    assert await ledger.run(jobs.postpone, job, 9e9)
    await ledger.run(locations.forget, ["a.jpg" if job.image_id == B else "b.jpg"], 9e9)
    assert await ledger.run(jobs.set_back, 200.0, 60.0) == 2
    assert await ledger.run(jobs.next_due) == 200.0
    assert await ledger.run(jobs.next_orphan) == 200.0


async def test_an_operation_that_fails_midway_leaves_nothing(ledger: Ledger) -> None:
    def half(connection: Connection) -> None:
        with connection.transaction():
            connection.execute("INSERT INTO mounts (path, device) VALUES ('x', 1)")
            raise RuntimeError("midway")

    with pytest.raises(RuntimeError, match="midway"):
        await ledger.run(half)
    assert await ledger.run(locations.mounts) == {}


async def test_two_watches_never_hold_at_once_where_several_may_ask(ledger: Ledger) -> None:
    async with ledger.watch() as watch:
        assert watch is not None
        assert not watch.lost.is_set()
        if ledger.is_shared:
            async with ledger.watch() as other:
                assert other is None
    async with ledger.watch() as watch:
        assert watch is not None


async def test_an_image_is_held_and_given_back(ledger: Ledger) -> None:
    async with ledger.hold(A), ledger.hold(B):
        pass
    async with asyncio.timeout(5), ledger.hold(A):
        pass


def test_any_order_of_events_keeps_its_promises_in_postgresql_as_well(database: DatabasePlace) -> None:
    """The machine of `tests/unit/watcher/test_ledger.py`, which runs over SQLite there."""
    with connected(database, durable=False) as session:
        migrate(session, postgres_steps(), part="ledger")

        class OnPostgres(LedgerMachine):
            def opened(self) -> Connection:
                session.execute("TRUNCATE images, paths, mounts, editions, course CASCADE")
                return PostgresConnection(session)

            def teardown(self) -> None:
                """The connection is for all runs."""

        run_state_machine_as_test(OnPostgres, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
