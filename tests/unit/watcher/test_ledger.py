"""The ledger against a model of it: any order of admissions, deletions, claims, endings, crashes and sweeps keeps its promises."""

from __future__ import annotations

import sqlite3
import tempfile
from importlib.resources import files
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.databases import migrate
from core.errors import Reason
from core.sql.connection import Connection, SqliteConnection
from watcher import database, jobs, locations, scans, views
from watcher.jobs import Job, Outcome
from watcher.locations import Admission, FileStat

PATHS = st.sampled_from(["a.jpg", "b.jpg", "d/a.jpg", "d/e/c.jpg"])
IMAGES = st.sampled_from(["1" * 64, "2" * 64, "3" * 64])
STAT = FileStat(10, 123_456_789, 7)


class LedgerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.connection = self.opened()
        self.now = 1000.0
        self.paths: dict[str, str | None] = {}
        self.claimed: dict[str, Job] = {}
        self.lost: list[Job] = []
        self.points: set[str] = set()

    def opened(self) -> Connection:
        """An empty ledger, in SQLite unless another home is tried."""
        self.folder = tempfile.TemporaryDirectory()
        self.file = database.opened(database.kept(Path(self.folder.name)))
        return self.file

    def teardown(self) -> None:
        self.file.close()
        self.folder.cleanup()

    @rule(path=PATHS, image_id=IMAGES, priority=st.integers(0, 2))
    def admit(self, path: str, image_id: str, priority: int) -> None:
        locations.admit(self.connection, [Admission(path, STAT, image_id, self.now, priority)], self.now)
        self.paths[path] = image_id

    @rule(path=PATHS)
    def refuse(self, path: str) -> None:
        locations.refuse(self.connection, path, STAT, Reason.EMPTY_FILE, "empty", now=self.now)
        self.paths[path] = None

    @rule(path=PATHS)
    def forget(self, path: str) -> None:
        assert locations.forget(self.connection, [path], self.now) == (path in self.paths)
        self.paths.pop(path, None)

    @rule(seconds=st.floats(0.1, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def claim(self) -> None:
        job = jobs.claim(self.connection, self.now, 60)
        if job is not None:
            assert job.image_id not in self.claimed, "claimed twice"
            assert job.image_id in self.paths.values(), "claimed without a path"
            self.claimed[job.image_id] = job

    @precondition(lambda self: self.claimed)
    @rule(end=st.sampled_from(["complete", "reject", "postpone", "count"]), data=st.data())
    def end(self, end: str, data: st.DataObject) -> None:
        job = self.claimed.pop(data.draw(st.sampled_from(sorted(self.claimed)), label="image"))
        version = jobs.places(self.connection, job.image_id).version
        if end == "complete":
            self.points.add(job.image_id)
            assert jobs.complete(self.connection, job, Outcome("f", 1, 1, 2, version), self.now)
        elif end == "reject":
            assert jobs.reject(self.connection, job, Reason.CORRUPT, "corrupt", fingerprint="f", now=self.now)
        elif end == "postpone":
            assert jobs.postpone(self.connection, job, self.now + 5)
        else:
            assert jobs.count_attempt(self.connection, job, self.now + 5, crashed=True)
        self.lost.append(job)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def a_lost_lease_changes_nothing(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(self.lost), label="lost")
        assert not jobs.complete(self.connection, job, Outcome("f", 1, 1, 2, 1), self.now)
        assert not jobs.postpone(self.connection, job, 0)

    @rule()
    def crash(self) -> None:
        assert jobs.recover(self.connection) == len(self.claimed)
        self.lost += self.claimed.values()
        self.claimed.clear()

    @rule(stop_between=st.booleans())
    def sweep(self, stop_between: bool) -> None:
        for image_id in jobs.orphans(self.connection, self.now, 100):
            assert image_id not in self.paths.values()
            assert jobs.condemn(self.connection, image_id)
            self.points.discard(image_id)
            if not stop_between:
                assert jobs.remove(self.connection, image_id)

    @rule()
    def other_models(self) -> None:
        jobs.requeue_others(self.connection, "g")

    @invariant()
    def paths_are_as_the_disk_has_them(self) -> None:
        known = locations.known(self.connection, ["a.jpg", "b.jpg", "d/a.jpg", "d/e/c.jpg"])
        assert {path: location.image_id for path, location in known.items()} == self.paths

    @invariant()
    def every_image_with_a_path_is_there_and_no_other_will_be_claimed(self) -> None:
        rows = self.connection.execute("SELECT image_id, orphaned_at FROM images").fetchall()
        assert {row["image_id"] for row in rows if row["orphaned_at"] is None} == {one for one in self.paths.values() if one}

    @invariant()
    def what_is_indexed_has_points_and_moves_are_remembered(self) -> None:
        indexed = self.connection.execute("SELECT image_id FROM images WHERE state = 'indexed'").fetchall()
        assert {row["image_id"] for row in indexed} <= self.points

    @invariant()
    def running_is_what_is_claimed(self) -> None:
        running = self.connection.execute("SELECT image_id FROM images WHERE state = 'running'").fetchall()
        assert {row["image_id"] for row in running} == set(self.claimed)
        counts = views.totals(self.connection).images
        assert counts.running == len(self.claimed)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestLedger = LedgerMachine.TestCase


def _ledger() -> SqliteConnection:
    connection = sqlite3.connect(":memory:", isolation_level=None, factory=SqliteConnection)
    connection.row_factory = sqlite3.Row
    migrate(connection, database.steps(), name="the ledger")
    return connection


def test_a_new_single_picture_overtakes_a_backfill_but_a_copied_tree_does_not() -> None:
    ledger = _ledger()
    locations.admit(ledger, [Admission(f"{n}.jpg", STAT, f"{n:064}", n) for n in range(100)], 100)
    locations.admit(
        ledger, [Admission(f"new{n}.jpg", STAT, f"{n:064x}".replace("0", "f", 1), 200 + n, 1) for n in range(100)], 300
    )
    first = jobs.claim(ledger, 300, 60)
    assert first is not None
    assert first.image_id.startswith("f")
    prompt = ledger.execute("SELECT count(*) FROM images WHERE priority = 1").fetchone()[0]
    assert prompt == 32
    ledger.close()


def test_a_moved_file_is_recognised_by_its_inode_unless_its_time_is_whole_seconds_and_its_name_changed() -> None:
    ledger = _ledger()
    exact, coarse = FileStat(5, 1_000_000_001, 9), FileStat(5, 2_000_000_000, 10)
    locations.admit(ledger, [Admission("x.jpg", exact, "1" * 64, 0), Admission("y.jpg", coarse, "2" * 64, 0)], 0)
    files = [("new.jpg", exact), ("z/y.jpg", coarse), ("other.jpg", coarse), ("more.jpg", FileStat(6, 1_000_000_001, 9))]
    assert locations.twins(ledger, files) == {"new.jpg": "1" * 64, "z/y.jpg": "2" * 64}
    ledger.close()


def test_a_scan_tells_new_changed_and_vanished_paths_below_a_folder() -> None:
    ledger = _ledger()
    admissions = [Admission(path, STAT, "1" * 64, 0) for path in ("d/same.jpg", "d/changed.jpg", "d/gone.jpg", "e/other.jpg")]
    locations.admit(ledger, admissions, 0)
    scans.begin(ledger)
    scans.mark(ledger, [("d/same.jpg", STAT), ("d/changed.jpg", FileStat(11, 1, 7)), ("d/new.jpg", STAT)])
    assert scans.changed(ledger, "", 10) == ["d/changed.jpg", "d/new.jpg"]
    assert scans.vanished(ledger, "d", "", 10) == ["d/gone.jpg"]
    assert scans.vanished(ledger, "", "", 10) == ["d/gone.jpg", "e/other.jpg"]
    scans.end(ledger)
    ledger.close()


def test_a_ledger_of_the_first_release_is_brought_up_and_queues_what_that_release_indexed(tmp_path: Path) -> None:
    first = sqlite3.connect(tmp_path / "ledger.sqlite3")
    first.executescript(files("watcher").joinpath("schema.sql").read_text("utf-8"))
    row = "INSERT INTO images (image_id, state, bytes, noticed_at, indexed_at, fingerprint) VALUES (?, ?, 1, 0, 0, 'f')"
    first.executemany(row, [("a", "indexed"), ("b", "failed")])
    first.execute("PRAGMA user_version = 1")
    first.commit()
    first.close()
    connection = database.opened(database.kept(tmp_path))
    assert jobs.requeue_others(connection, "f") == 1
    assert dict(connection.execute("SELECT image_id, state FROM images").fetchall()) == {"a": "pending", "b": "failed"}
    job = jobs.claim(connection, 1.0, 60)
    assert job is not None
    assert jobs.complete(connection, job, Outcome("f", 1, 1, 0, 0), 2.0)
    assert jobs.requeue_others(connection, "f") == 0
    connection.close()
