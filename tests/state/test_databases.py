"""SQLite files that were damaged at rest: found at the start, set aside, made anew; what feedback can be read is brought over."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from core import damage
from core.databases import KeptDatabase, NewerRelease, migrate
from core.schemas import StatePart, Vector
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_export import record_of
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_rescue import readable, rescue
from searchsvc.feedback_schema import _STEPS as FEEDBACK_STEPS
from searchsvc.feedback_schema import FEEDBACK_NAME, FeedbackFile
from tests.state.damage import HARMS
from watcher import database

RATINGS = 300
SEED = int(os.environ.get("DAMAGE_SEED", "20261121"))


def rating(n: int) -> Rating:
    """Every seventh is longer than a page, so that it goes on in others."""
    shown = [f"{n:064x}"] * (120 if n % 7 == 0 else 3)
    numbers = np.random.default_rng(n).normal(size=512)
    vector: Vector = (numbers / np.linalg.norm(numbers)).astype(np.float32)
    return Rating(
        jti=f"token {n}",
        rating=n % 10 + 1,
        image_id=shown[0],
        segment=None,
        search_id=str(UUID(int=n)),
        query={"text": f"wörds {n}", "scope": "images"},
        model="clip-1",
        shown=shown,
        scores=[0.25] * 3,
        rotation=0.5 * (n % 3),
        query_vector=vector if n % 2 else None,
    )


async def stored(path: Path) -> dict[str, tuple[int, dict[str, object], list[str]]]:
    async with FeedbackStore(FileFeedback(path)) as store:
        kept = [one.rating async for page in store.pages() for one in page]
    return {one.jti: (one.rating, dict(one.query), list(one.shown)) for one in kept}


def expected(numbers: range) -> dict[str, tuple[int, dict[str, object], list[str]]]:
    return {one.jti: (one.rating, dict(one.query), list(one.shown)) for one in map(rating, numbers)}


@pytest.fixture(scope="module")
def closed_well(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ratings, closed."""
    folder = tmp_path_factory.mktemp("feedback")
    _write(folder, crash=False)
    return folder


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose process was killed: a third of the ratings are in the journal alone."""
    folder = tmp_path_factory.mktemp("feedback-killed")
    _write(folder, crash=True)
    assert (folder / f"{FEEDBACK_NAME}-wal").stat().st_size > 0
    return folder


WRITER = """
import asyncio, os, signal, sys
from pathlib import Path
from searchsvc.feedback import FeedbackStore
from searchsvc.feedback_file import FileFeedback
from tests.state.test_databases import RATINGS, rating

async def main():
    async with FeedbackStore(FileFeedback(Path(sys.argv[1]))) as store:
        for n in range(RATINGS):
            await store.add(rating(n))
            if n == RATINGS * 2 // 3:
                await store._home.write(lambda connection: connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        if sys.argv[2] == "crash":
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def _write(folder: Path, *, crash: bool) -> None:
    command = [sys.executable, "-c", WRITER, str(folder / FEEDBACK_NAME), "crash" if crash else "end"]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], timeout=60, check=False)
    assert ended.returncode == (-signal.SIGKILL if crash else 0)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    print(f"DAMAGE_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


# --- feedback ----------------------------------------------------------------------------------------------------------


async def test_a_store_that_was_closed_well_is_taken_as_it_is(closed_well: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(closed_well, tmp_path / "data", copy_function=shutil.copy2)
    assert await stored(folder / FEEDBACK_NAME) == expected(range(RATINGS))
    assert damage.repairs(folder) == ()


@pytest.mark.parametrize("state", ["closed_well", "killed"])
@pytest.mark.parametrize("harm", HARMS)
async def test_ratings_of_a_damaged_file_are_rescued_as_far_as_they_can_be_read(
    state: str, harm: str, request: pytest.FixtureRequest, tmp_path: Path, rng: random.Random
) -> None:
    folder = shutil.copytree(request.getfixturevalue(state), tmp_path / "data", copy_function=shutil.copy2)
    HARMS[harm](folder / FEEDBACK_NAME, rng)
    kept = await stored(folder / FEEDBACK_NAME)
    whole = expected(range(RATINGS))
    assert all(whole[jti] == found for jti, found in kept.items())
    least = {"emptied": 0, "deleted": 0, "halved": RATINGS // 4}.get(harm, RATINGS * 9 // 10)
    in_the_journal = RATINGS // 3 - 1 if state == "killed" else 0
    assert len(kept) >= max(least, in_the_journal)
    repairs = damage.repairs(folder)
    assert len(repairs) == 1 or (state == "killed" and kept == whole)  # its journal may hold all the pages that were damaged
    for repair in repairs:
        assert (repair.part, f"{len(kept)} ratings" in repair.detail) == (StatePart.FEEDBACK, True)
        assert (folder / repair.kept_as).is_dir()
    assert await stored(folder / FEEDBACK_NAME) == kept
    assert damage.repairs(folder) == repairs


@pytest.mark.parametrize("suffix", ["-wal", "-shm"])
@pytest.mark.parametrize("harm", HARMS)
async def test_a_damaged_journal_costs_no_rating_that_reached_the_file(
    suffix: str, harm: str, killed: Path, tmp_path: Path, rng: random.Random
) -> None:
    folder = shutil.copytree(killed, tmp_path / "data", copy_function=shutil.copy2)
    HARMS[harm](folder / f"{FEEDBACK_NAME}{suffix}", rng)
    kept, whole = await stored(folder / FEEDBACK_NAME), expected(range(RATINGS))
    assert all(whole[jti] == found for jti, found in kept.items())
    assert kept.keys() >= expected(range(RATINGS * 2 // 3 + 1)).keys()
    if suffix == "-shm":
        assert kept == whole


async def test_a_journal_of_another_database_is_found_and_costs_nothing(closed_well: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(closed_well, tmp_path / "data", copy_function=shutil.copy2)
    with closing(sqlite3.connect(tmp_path / "other", isolation_level=None)) as other:
        other.executescript("PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (randomblob(50000));")
        shutil.copy(tmp_path / "other-wal", folder / f"{FEEDBACK_NAME}-wal")
    assert await stored(folder / FEEDBACK_NAME) == expected(range(RATINGS))
    assert [repair.part for repair in damage.repairs(folder)] == [StatePart.FEEDBACK]


async def test_a_spent_token_stays_spent_through_a_rescue(closed_well: Path, tmp_path: Path, rng: random.Random) -> None:
    from core.errors import Conflict

    folder = shutil.copytree(closed_well, tmp_path / "data", copy_function=shutil.copy2)
    HARMS["garbage_at_the_head"](folder / FEEDBACK_NAME, rng)
    async with FeedbackStore(FileFeedback(folder / FEEDBACK_NAME)) as store:
        with pytest.raises(Conflict):
            await store.add(rating(200))
        await store.add(rating(RATINGS + 1))


@pytest.mark.parametrize("crash_at", ["set aside", "rows", "note"])
async def test_a_rescue_that_is_killed_midway_is_gone_through_again(
    crash_at: str, killed: Path, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(killed, tmp_path / "data", copy_function=shutil.copy2)
    HARMS["garbage_in_the_middle"](folder / FEEDBACK_NAME, rng)
    alone = shutil.copytree(folder, tmp_path / "undisturbed", copy_function=shutil.copy2)
    whole = await stored(alone / FEEDBACK_NAME)

    class Killed(BaseException):
        pass

    def dies(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        target = {"set aside": "core.databases.KeptDatabase.connect", "rows": "searchsvc.feedback_rescue._add"}
        patch.setattr(target.get(crash_at, "core.damage.conclude"), dies)
        with pytest.raises(Killed):
            FeedbackFile(folder / FEEDBACK_NAME).open()
    assert await stored(folder / FEEDBACK_NAME) == whole
    assert len(damage.repairs(folder)) == 1
    assert damage.begun(folder / FEEDBACK_NAME) == []


async def test_only_the_newest_few_of_the_damaged_files_are_kept(tmp_path: Path, rng: random.Random) -> None:
    for n in range(8):
        async with FeedbackStore(FileFeedback(tmp_path / FEEDBACK_NAME)) as store:
            await store.add(rating(n))
        HARMS["garbage_at_the_head"](tmp_path / FEEDBACK_NAME, rng)
    await stored(tmp_path / FEEDBACK_NAME)
    assert len(damage.repairs(tmp_path)) == len(list(tmp_path.glob("*.damaged-*"))) == 5


async def test_what_is_read_raw_out_of_a_whole_file_is_what_sqlite_reads(closed_well: Path, killed: Path) -> None:
    for folder in (closed_well, killed):
        found = {row["jti"]: row for row in readable(folder)}
        with closing(sqlite3.connect(f"file:{folder / FEEDBACK_NAME}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            rows = {row["jti"]: dict(row) for row in connection.execute("SELECT * FROM feedback")}
        assert found == rows


@pytest.mark.parametrize(
    ("column", "damaged"),
    [
        ("segment", b""),
        ("model_name", b""),
        ("scores", "[0.25, 0.?5]"),
        ("scores", '["far"]'),
        ("scores", None),
        ("first_rank", 0),
        ("first_rank", "first"),
        ("client", b"\xff"),
        ("rotation", "far"),
        ("query_vector", b"12345"),
        ("query_vector", np.full(512, 1e30, dtype="<f4").tobytes()),
        ("query_vector", np.full(512, np.nan, dtype="<f4").tobytes()),
    ],
)
async def test_a_rating_is_rescued_without_what_is_damaged_beside_it(
    closed_well: Path, tmp_path: Path, column: str, damaged: object
) -> None:
    """Its token stays spent, and what is left of it hides no others from who reads them."""
    aside = tmp_path / "aside"
    aside.mkdir()
    with closing(sqlite3.connect(aside / FEEDBACK_NAME)) as loose:  # in a table that takes anything, as damage does
        schema = FEEDBACK_STEPS[1].partition(") STRICT")[0].replace("judged", "feedback").replace("NOT NULL", "")
        loose.execute(f"{schema})")
        loose.execute(f"ATTACH '{closed_well / FEEDBACK_NAME}' AS whole")
        loose.execute("INSERT INTO feedback SELECT * FROM whole.feedback WHERE sequence <= 9")
        loose.execute(f"UPDATE feedback SET {column} = ? WHERE sequence = 4", (damaged,))  # noqa: S608 - our own words
        loose.commit()
    file = FeedbackFile(tmp_path / FEEDBACK_NAME)
    connection = file.open()
    rescue(aside, connection)
    file.close(connection)
    assert await stored(tmp_path / FEEDBACK_NAME) == expected(range(9))
    async with FeedbackStore(FileFeedback(tmp_path / FEEDBACK_NAME)) as store:
        read = [kept async for page in store.pages() for kept in page]
    assert len([record_of(kept) for kept in read]) == 9
    lengths = [np.linalg.norm(kept.rating.query_vector) for kept in read if kept.rating.query_vector is not None]
    assert np.allclose(lengths, 1)


async def test_a_second_service_on_the_same_file_neither_looks_for_damage_nor_seals_it(tmp_path: Path) -> None:
    async with FeedbackStore(FileFeedback(tmp_path / FEEDBACK_NAME)) as first:
        await first.add(rating(1))
        async with FeedbackStore(FileFeedback(tmp_path / FEEDBACK_NAME)) as second:
            await second.add(rating(2))
        assert (tmp_path / f"{FEEDBACK_NAME}.seal").read_bytes() == b"open\n"
        await first.add(rating(3))
    assert (tmp_path / f"{FEEDBACK_NAME}.seal").read_bytes() != b"open\n"
    assert set(await stored(tmp_path / FEEDBACK_NAME)) == {"token 1", "token 2", "token 3"}


# --- the ledger --------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """A data folder whose ledger was closed."""
    kept = database.kept(tmp_path)
    connection = database.opened(kept)
    rows = [(f"{n:064x}", 1, 0.0) for n in range(2000)]
    with connection.transaction():
        connection.executemany("INSERT INTO images (image_id, state, bytes, noticed_at) VALUES (?, 'pending', ?, ?)", rows)
    kept.close(connection)
    return tmp_path


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_ledger_is_set_aside_and_begun_anew(harm: str, ledger: Path, rng: random.Random) -> None:
    HARMS[harm](ledger / database.LEDGER_NAME, rng)
    kept = database.kept(ledger)
    connection = database.opened(kept)
    assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    rows = [tuple(row) for row in connection.execute("SELECT image_id, state, bytes, noticed_at FROM images ORDER BY image_id")]
    kept.close(connection)
    if harm == "garbage_all_over" and rows:  # it hit pages that hold nothing, and so cost nothing
        assert rows == [(f"{n:064x}", "pending", 1, 0.0) for n in range(2000)]
        return
    assert rows == []
    (repair,) = damage.repairs(ledger)
    assert repair.part == StatePart.LEDGER
    if harm != "deleted":
        assert (ledger / repair.kept_as / database.LEDGER_NAME).is_file()
    assert database.kept(ledger).wound() is None


def test_a_ledger_whose_process_was_killed_is_read_through_and_kept(ledger: Path) -> None:
    kept = database.kept(ledger)
    connection = database.opened(kept)
    connection.execute("UPDATE images SET bytes = 2")
    connection.close()  # without a seal, as a kill leaves it
    again = database.opened(database.kept(ledger))
    assert again.execute("SELECT sum(bytes) FROM images").fetchone()[0] == 4000
    again.close()
    assert damage.repairs(ledger) == ()


def test_without_permission_nothing_is_taken_for_damage(ledger: Path) -> None:
    (ledger / f"{database.LEDGER_NAME}.seal").unlink()
    (ledger / database.LEDGER_NAME).rename(ledger / "elsewhere")
    (ledger / database.LEDGER_NAME).mkdir()
    (ledger / database.LEDGER_NAME / "in the way").touch()
    with pytest.raises(sqlite3.OperationalError):
        database.opened(database.kept(ledger))
    assert list(ledger.glob("*.damaged-*")) == []


# --- schemas -----------------------------------------------------------------------------------------------------------

COUNT = {"ledger": "SELECT count(*) FROM images", "feedback": "SELECT count(*) FROM feedback"}
STEPS = {"ledger": tuple(database.steps()), "feedback": FEEDBACK_STEPS}
ROWS = {
    ("ledger", 1): "INSERT INTO images (image_id, state, bytes, noticed_at) VALUES ('a', 'pending', 5, 1.0)",
    ("feedback", 1): "INSERT INTO feedback VALUES ('f', 't', 7, NULL, NULL, 's', '{}', 'm', '[]', '2026-01-01T00:00:00+00:00')",
}


def _of_version(path: Path, name: str, version: int) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, STEPS[name][:version], name=name)
        if (name, version) in ROWS:
            connection.execute(ROWS[name, version])


def _kept(path: Path, name: str) -> KeptDatabase:
    return KeptDatabase(path, STEPS[name], part=StatePart(name), synchronous="FULL")


def _nothing(_: Path, __: sqlite3.Connection) -> str:
    raise AssertionError("it is not damaged")


@pytest.mark.parametrize(("name", "version"), [(name, version) for name in STEPS for version in range(1, len(STEPS[name]) + 1)])
def test_a_file_of_every_earlier_schema_becomes_one_of_today_with_its_rows(tmp_path: Path, name: str, version: int) -> None:
    _of_version(tmp_path / "old", name, version)
    _of_version(tmp_path / "new", name, len(STEPS[name]))
    schema = "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"
    with (
        closing(_kept(tmp_path / "old", name).open(_nothing, keep=1)) as migrated,
        closing(sqlite3.connect(tmp_path / "new")) as new,
    ):
        assert migrated.execute("PRAGMA user_version").fetchone() == (len(STEPS[name]),)
        assert migrated.execute(schema).fetchall() == new.execute(schema).fetchall()
        assert migrated.execute(COUNT[name]).fetchone() == (int((name, version) in ROWS),)


@pytest.mark.parametrize("name", STEPS)
def test_a_file_of_a_later_schema_is_refused_and_untouched(tmp_path: Path, name: str) -> None:
    path = tmp_path / "later"
    _of_version(path, name, len(STEPS[name]))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = {one.name: one.read_bytes() for one in tmp_path.iterdir()}
    with pytest.raises(NewerRelease, match=r"newer release \(schema 99"):
        _kept(path, name).open(_nothing, keep=1)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == before


MIGRATOR = """
import os, sqlite3, sys
from pathlib import Path
import tests.state.test_databases as t
from core.databases import migrate
path, name, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
connection = sqlite3.connect(path, isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
steps = 0
def count():
    global steps
    steps += 1
    if steps == at:
        os.kill(os.getpid(), 9)
connection.set_progress_handler(count, 1)
migrate(connection, t.STEPS[name], name=name)
print(steps)
"""


@pytest.mark.parametrize("name", STEPS)
def test_a_migration_that_is_killed_at_any_moment_leaves_the_old_schema_or_a_later_one(
    tmp_path: Path, name: str, rng: random.Random
) -> None:
    def migrated(path: Path, at: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", MIGRATOR, str(path), name, str(at)]
        return subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60, check=False)

    _of_version(tmp_path / "first", name, 1)
    steps = int(migrated(shutil.copy(tmp_path / "first", tmp_path / "counted"), 0).stdout)
    assert steps > 50
    for at in sorted(rng.sample(range(1, steps), 6)):
        path = shutil.copy(tmp_path / "first", tmp_path / f"killed-{at}")
        assert migrated(path, at).returncode == -signal.SIGKILL
        with closing(sqlite3.connect(path)) as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
        _of_version(tmp_path / f"model-{at}", name, version)
        with closing(sqlite3.connect(tmp_path / f"model-{at}")) as model:
            whole = {name for (name,) in model.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")}
        assert tables == whole
        with closing(_kept(path, name).open(_nothing, keep=1)) as connection:
            assert connection.execute(COUNT[name]).fetchone() == (1,)


def test_notes_that_cannot_be_read_hide_no_others(tmp_path: Path) -> None:
    for n, note in enumerate((b"{", b"\xff", json.dumps({"part": "moon"}).encode())):
        (tmp_path / f"x.damaged-{n}").mkdir()
        (tmp_path / f"x.damaged-{n}" / "why.json").write_bytes(note)
    damage.conclude(damage.set_aside(tmp_path / "y", []), StatePart.LEDGER, "it was broken", keep=3)
    assert [repair.detail for repair in damage.repairs(tmp_path)] == ["it was broken"]
