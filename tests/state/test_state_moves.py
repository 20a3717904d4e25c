"""Ledger and ratings move between SQLite and PostgreSQL: all of them, or none, as they were, and nothing is analysed again."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.databases import MOVING, MoveBrokenOff, NewerRelease
from core.errors import Conflict
from core.settings import FolderSettings
from core.sql.place import DatabasePlace
from searchsvc.feedback import FeedbackStore, Rating
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_schema import FEEDBACK_NAME, FeedbackFile
from searchsvc.feedback_shared import SharedFeedback
from standalone.moves.state.moving import SQLITE, move_state
from standalone.moves.state.tables import PASSING, TABLES, CannotMoveState, StateDiffers
from tests.checkpoints import synthetic_picture
from tests.e2e.product import Product, wait_for
from tests.ports import free_port
from tests.postgres import PostgresServer
from tests.queue.rig import Process
from tests.state.test_product import rate
from tests.unit.watcher.fakes import House, image_id_of, jpeg
from watcher import database as ledger_file
from watcher.app import RunningWatcher
from watcher.database import LEDGER_NAME, LedgerInUse
from watcher.ledger import FileLedger
from watcher.shared_ledger import SharedLedger

# ruff: noqa: S608 - the tables' names are our own
ROOT = Path(__file__).parents[2]
NAMES = {LEDGER_NAME: [table.name for table in TABLES if table.name != "feedback"], FEEDBACK_NAME: ["feedback"]}
ODD = (
    'it\'s "this"',
    "tab\there",
    "new\nline",
    "back\\slash \\N \\.",
    "\\N",
    "",
    "grün 日本 🐈",
    "%s :name ?",
    "{a,b}",
    "\x01\x7f",
)

State = dict[str, list[tuple[Any, ...]]]
"""All rows by table, in the order of their values."""


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("FAULT_SEED", random.randrange(2**31)))
    print(f"FAULT_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def second(postgres: PostgresServer) -> Iterator[str]:
    """Another empty database."""
    name = f"second_{random.randrange(2**40)}"
    yield postgres.make_database(name)
    postgres.drop_database(name)


def settings_of(data_dir: Path, url: str | None = None) -> FolderSettings:
    return FolderSettings(data_dir=data_dir, database_url=url)


def real(chance: random.Random) -> float:
    return chance.choice([0.0, -0.0, 1e-300, 1.7e308, 0.1 + 0.2, chance.uniform(0, 2e9), float(chance.randrange(2**53))])


def text(chance: random.Random) -> str:
    return chance.choice(ODD) + chance.choice(ODD)


def image(number: int, chance: random.Random) -> tuple[Any, ...]:
    state = chance.choice(["pending", "running", "indexed", "failed"])
    lease = (f"lease {number}", real(chance)) if state == "running" else (None, None)
    told = (chance.choice([None, "corrupt"]), chance.choice([None, text(chance), "with a \x00 in it"]))
    small = [chance.choice([0, 1, 2**31 - 1]) for _ in range(5)]
    times = [chance.choice([None, real(chance)]) for _ in range(3)]
    fingerprint = chance.choice([None, "f1", "f2"])
    row = (f"{number:064x}", state, *told, chance.randrange(2**63), *small[:2], *small[2:5], real(chance), chance.randint(-2, 2))
    return (*row, *lease, real(chance), *times[:2], fingerprint, 3, chance.randrange(4), times[2], chance.choice([1, 2]))


def fill(data_dir: Path, chance: random.Random, *, images: int = 200, ratings: int = 150) -> None:
    with closing(ledger_file.opened(ledger_file.kept(data_dir))) as ledger:
        ledger.execute("BEGIN")
        for fingerprint in ("f2", "f1"):
            ledger.execute("INSERT INTO editions VALUES (?, ?, ?, ?)", (fingerprint, text(chance), '["clip"]', real(chance)))
        ledger.execute("INSERT INTO course VALUES (1, 'f1', 'f2', NULL, ?, ?)", (text(chance), chance.randrange(2)))
        rows = [image(number, chance) for number in range(images)]
        ledger.executemany(f"INSERT INTO images VALUES ({', '.join('?' * 22)})", rows)
        for number in range(images):
            path, stat = f"{text(chance)}/{number}", (2**63 - 1, chance.randrange(2**63), chance.randrange(-(2**63), 2**63))
            failed = (None, "too_large", text(chance)) if number % 7 == 0 else (f"{number:064x}", None, None)
            ledger.execute(
                "INSERT INTO paths VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (path, failed[0], *stat, *failed[1:], real(chance))
            )
        ledger.execute("INSERT INTO mounts VALUES ('', ?), ('d/ü', -1)", (chance.randrange(2**40),))
        ledger.execute("INSERT INTO comparisons VALUES ('clip', ?)", ("ab" * 20,))
        ledger.execute("COMMIT")
    fill_ratings(data_dir, chance, ratings)


def fill_ratings(data_dir: Path, chance: random.Random, ratings: int) -> None:
    """With gaps in their numbers, the last ones given to ratings that are gone."""
    file = FeedbackFile(data_dir / FEEDBACK_NAME)
    feedback, sequence = file.open(), 0
    feedback.execute("BEGIN")
    for number in range(ratings):
        sequence += chance.choice([1, 1, 1, 5, 10**6])
        vector = chance.choice([None, b"", chance.randbytes(64), b"\\x00\x00\\N\n"])
        row = (sequence, f"id {number}", f"token {number}", chance.randint(1, 10), chance.choice([None, "a" * 64]))
        told = (
            chance.choice([None, 0, 7]),
            f"s{number}",
            text(chance),
            "clip",
            chance.choice([None, text(chance)]),
            "[]",
            "[0.5]",
        )
        last = (chance.randint(1, 99), chance.choice([None, text(chance)]), real(chance), vector, f"2026-01-01T00:00:{number:06}")
        feedback.execute(f"INSERT INTO feedback VALUES ({', '.join('?' * 17)})", (*row, *told, *last))
    feedback.execute("UPDATE sqlite_sequence SET seq = seq + 40")
    feedback.execute("COMMIT")
    file.close(feedback)


def ordered(rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    return sorted(
        (tuple(value.replace("\x00", "\ufffd") if isinstance(value, str) else value for value in row) for row in rows), key=repr
    )


def in_files(data_dir: Path) -> State:
    found: State = {}
    for name, tables in NAMES.items():
        if (data_dir / name).exists():
            with closing(sqlite3.connect(data_dir / name)) as connection:
                for table in tables:
                    columns = sorted(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))
                    found[table] = ordered(connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall())
    return found


def in_database(url: str) -> State:
    found: State = {}
    with psycopg.connect(url) as connection:
        for table in [name for tables in NAMES.values() for name in tables]:
            if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() != (None,):
                asked = connection.execute(f"SELECT * FROM {table} LIMIT 0".encode())
                columns = sorted(column.name for column in asked.description or ())
                found[table] = ordered(connection.execute(f"SELECT {', '.join(columns)} FROM {table}".encode()).fetchall())
    return found


def total(state: State) -> int:
    return sum(map(len, state.values()))


def a_rating(jti: str) -> Rating:
    return Rating(jti=jti, rating=5, image_id=None, segment=None, search_id="s", query={}, model="clip", shown=[])


def moving(data_dir: Path, to: str, url: str | None = None, *more: str, code: str | None = None) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if key != "DATABASE_URL"}
    environment |= {"DATA_DIR": str(data_dir), **({"DATABASE_URL": url} if url else {})}
    how = ["-c", code] if code else ["-m", "standalone.moves.state"]
    command = [sys.executable, *how, "--to", to, *more]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


# --- as it was ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [2, pytest.param(200, marks=pytest.mark.long)])
async def test_every_row_is_in_the_other_home_as_it_was_and_back_again(
    tmp_path: Path, postgres: PostgresServer, chance: random.Random, rounds: int
) -> None:
    for number in range(rounds):
        here, back = tmp_path / f"here {number}", tmp_path / f"back {number}"
        fill(here, chance, images=chance.choice([0, 1, 300]), ratings=chance.choice([0, 1, 300]))
        url, before = postgres.make_database(f"moved_{number}"), in_files(here)
        there = move_state(settings_of(here), url)
        assert in_database(url) == before
        again = move_state(settings_of(back, url), SQLITE)
        assert in_files(back) == before == in_files(here)
        assert there.tables == again.tables
        assert {table.name: table.rows for table in there.tables} == {name: len(rows) for name, rows in before.items()}
        postgres.drop_database(f"moved_{number}")


async def test_a_database_moves_to_another_one(
    tmp_path: Path, database: DatabasePlace, second: str, chance: random.Random
) -> None:
    fill(tmp_path, chance)
    move_state(settings_of(tmp_path), database.url)
    move_state(settings_of(tmp_path / "nothing", database.url), second)
    assert in_database(second) == in_files(tmp_path)


async def test_a_spent_token_stays_spent_and_the_next_rating_has_a_higher_number(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    fill(tmp_path / "here", chance)
    with closing(sqlite3.connect(tmp_path / "here" / FEEDBACK_NAME)) as connection:
        (highest,) = connection.execute("SELECT seq FROM sqlite_sequence").fetchone()
    move_state(settings_of(tmp_path / "here"), database.url)
    homes = [SharedFeedback(database), FileFeedback(tmp_path / "back" / FEEDBACK_NAME)]
    for number, home in enumerate(homes):
        async with FeedbackStore(home) as store:
            with pytest.raises(Conflict):
                await store.add(a_rating("token 7"))
            await store.add(a_rating(f"new {number}"))
            newest = [kept.sequence async for page in store.pages(after=highest) for kept in page]
            assert len(newest) == number + 1, "whoever reads on behind the last one misses none"
        if home is homes[0]:
            move_state(settings_of(tmp_path / "back", database.url), SQLITE)


def test_every_table_of_either_home_is_moved_or_left_behind_on_purpose(tmp_path: Path, database: DatabasePlace) -> None:
    fill(tmp_path, random.Random(1), images=1, ratings=1)
    move_state(settings_of(tmp_path), database.url)
    with psycopg.connect(database.url) as connection:
        there = {name for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    moved = {table.name for table in TABLES}
    assert there - moved == {"schema_versions", *(name for names in PASSING.values() for name in names)}
    for name in NAMES:
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            here = {found for (found,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert here - moved - {"sqlite_sequence", "sqlite_stat1"} == set()


def test_a_part_that_is_kept_elsewhere_is_moved_from_there(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    """In the composed form each service has a DATA_DIR of its own."""
    fill(tmp_path / "watcher", chance)
    (tmp_path / "search").mkdir()
    for found in list((tmp_path / "watcher").glob(f"{FEEDBACK_NAME}*")):
        found.rename(tmp_path / "search" / found.name)
    whole = in_files(tmp_path / "watcher") | in_files(tmp_path / "search")
    assert move_state(settings_of(tmp_path / "watcher"), database.url).left_out == {"feedback"}
    assert move_state(settings_of(tmp_path / "search"), database.url).left_out == {"ledger"}
    assert in_database(database.url) == whole


# --- all or nothing -----------------------------------------------------------------------------------------------------


MOVED_AND_KILLED = """
import os, signal, sys, time
from pathlib import Path
from core.settings import FolderSettings
from standalone.moves.state.moving import move_state

data_dir, url, to = sys.argv[1:]
settings = FolderSettings(data_dir=Path(data_dir), database_url=url or None)
for line in sys.stdin:
    began = time.monotonic()
    child = os.fork()
    if not child:
        signal.setitimer(signal.ITIMER_REAL, float(line))  # which ends it on the spot
        try:
            move_state(settings, to)
        except Exception as error:
            print(error, file=sys.stderr)
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), time.monotonic() - began, flush=True)
"""


@pytest.mark.parametrize("to_database", [True, False])
@pytest.mark.parametrize(("images", "kills"), [(1000, 4), pytest.param(5000, 200, marks=pytest.mark.long)])
def test_killed_at_any_moment_the_new_home_holds_nothing_or_everything(
    tmp_path: Path, database: DatabasePlace, second: str, chance: random.Random, images: int, *, kills: int, to_database: bool
) -> None:
    fill(tmp_path / "here", chance, images=images, ratings=images // 4)
    whole, target = in_files(tmp_path / "here"), tmp_path / "there"
    asked = [str(tmp_path / "here"), "", second] if to_database else [str(target), database.url, SQLITE]
    if not to_database:
        move_state(settings_of(tmp_path / "here"), database.url)
    command = [sys.executable, "-c", MOVED_AND_KILLED, *asked]
    seen = {"nothing": 0, "everything": 0}
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as mover:
        assert mover.stdin is not None
        assert mover.stdout is not None

        def moved_within(limit_s: float) -> tuple[int, float]:
            print(limit_s, file=mover.stdin, flush=True)
            code, took_s = mover.stdout.readline().split()
            return int(code), float(took_s)

        code, took_s = moved_within(0)
        assert code == 0
        found: State = {}
        for _ in range(kills):
            clear(second if to_database else target)
            code, _ = moved_within(chance.uniform(0.05, 1.0) * took_s)
            assert code in {0, -signal.SIGALRM}
            found = in_database(second) if to_database else in_files(target)
            assert total(found) == 0 or found == whole or (target / MOVING).exists()
            seen["everything" if total(found) else "nothing"] += 1
        print(seen)
        if found != whole:
            assert moved_within(0)[0] == 0
        mover.stdin.close()
    assert (in_database(second) if to_database else in_files(target)) == whole


def clear(home: str | Path) -> None:
    if isinstance(home, Path):
        for path in home.iterdir():
            path.unlink()
        return
    with psycopg.connect(home) as connection:
        connection.execute("TRUNCATE editions, course, images, paths, mounts, comparisons, feedback, tasks, hints, searches")


KILLED_BETWEEN = """
import os, signal, sqlite3, sys
from core import files
from standalone.moves.state import files_home
from standalone.moves.state.__main__ import main

class Once:
    def __init__(self, opened): self.opened = opened
    def values(self):
        for number, one in enumerate(self.opened.values()):
            if number: os.kill(os.getpid(), signal.SIGKILL)
            yield one
    def __getattr__(self, name): return getattr(self.opened, name)
    def __getitem__(self, part): return self.opened[part]
    def __iter__(self): return iter(self.opened)
    def __len__(self): return len(self.opened)

real = files_home.FilesHome.__init__
def init(self, data_dir, opened):
    real(self, data_dir, Once(opened))
files_home.FilesHome.__init__ = init
main()
"""


async def test_killed_between_the_two_files_nothing_starts_on_the_half_and_the_same_command_makes_it_whole(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    fill(tmp_path / "here", chance)
    move_state(settings_of(tmp_path / "here"), database.url)
    target, whole = tmp_path / "there", in_files(tmp_path / "here")
    process = moving(target, SQLITE, database.url, code=KILLED_BETWEEN)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    found = in_files(target)
    assert (found["feedback"], found["images"]) == (whole["feedback"], [])
    for home in (FileLedger(target), FileFeedback(target / FEEDBACK_NAME)):
        with pytest.raises(MoveBrokenOff, match="make move-state"):
            async with home:
                pass
    with pytest.raises(CannotMoveState, match="broken off"):
        move_state(settings_of(target), database.url)
    move_state(settings_of(target, database.url), SQLITE)
    assert in_files(target) == whole
    async with FileLedger(target), FileFeedback(target / FEEDBACK_NAME):
        assert not (target / MOVING).exists()


@pytest.mark.parametrize("harm", ["altered", "lost", "refused"])
def test_what_the_new_home_makes_otherwise_of_a_row_is_found_and_nothing_is_moved(
    tmp_path: Path, database: DatabasePlace, chance: random.Random, harm: str
) -> None:
    fill(tmp_path, chance)
    move_state(settings_of(tmp_path), database.url)
    clear(database.url)
    does = {"altered": "NEW.rating := 11 - NEW.rating; RETURN NEW;", "lost": "RETURN NULL;", "refused": "RAISE 'no room';"}[harm]
    with psycopg.connect(database.url) as connection:
        connection.execute(
            f"CREATE FUNCTION harm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.feedback_id <> 'id 9' THEN RETURN NEW; END IF;"
            f" {does} END $$; CREATE TRIGGER harm BEFORE INSERT ON feedback FOR EACH ROW EXECUTE FUNCTION harm()".encode()
        )
    with pytest.raises((StateDiffers, CannotMoveState), match="no room" if harm == "refused" else "nothing was moved"):
        move_state(settings_of(tmp_path), database.url)
    assert total(in_database(database.url)) == 0


# --- refusals -----------------------------------------------------------------------------------------------------------


async def test_a_home_that_holds_a_state_is_not_touched_unless_it_is_wanted(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    fill(tmp_path / "old", chance, images=20, ratings=5)
    fill(tmp_path / "new", chance, images=30, ratings=9)
    old, new = in_files(tmp_path / "old"), in_files(tmp_path / "new")
    move_state(settings_of(tmp_path / "old"), database.url)
    with pytest.raises(CannotMoveState, match=r"20 rows in images.*5 rows in feedback.*--replace"):
        move_state(settings_of(tmp_path / "new"), database.url)
    assert in_database(database.url) == old
    move_state(settings_of(tmp_path / "new"), database.url, replace=True)
    assert in_database(database.url) == new
    with pytest.raises(CannotMoveState, match="--replace"):
        move_state(settings_of(tmp_path / "old", database.url), SQLITE)
    assert in_files(tmp_path / "old") == old
    move_state(settings_of(tmp_path / "old", database.url), SQLITE, replace=True)
    assert in_files(tmp_path / "old") == new


async def test_nothing_is_moved_while_a_part_of_the_product_works_with_either_home(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    fill(tmp_path, chance, images=3, ratings=3)
    before = in_files(tmp_path)
    async with FileLedger(tmp_path):
        with pytest.raises(LedgerInUse):
            move_state(settings_of(tmp_path), database.url)
    async with FileFeedback(tmp_path / FEEDBACK_NAME):
        with pytest.raises(CannotMoveState, match="search service"):
            move_state(settings_of(tmp_path), database.url)
    async with SharedFeedback(database):  # as a search service, or a worker
        with pytest.raises(CannotMoveState, match="are connected"):
            move_state(settings_of(tmp_path), database.url)
    async with SharedLedger(database) as ledger, ledger.watch():
        with pytest.raises(CannotMoveState, match="a watcher works"):
            move_state(settings_of(tmp_path), database.url)
    assert total(in_database(database.url)) == 0
    move_state(settings_of(tmp_path), database.url)
    async with SharedFeedback(database):
        with pytest.raises(CannotMoveState, match="are connected"):
            move_state(settings_of(tmp_path / "back", database.url), SQLITE)
    assert in_files(tmp_path) == before
    assert total(in_files(tmp_path / "back")) == 0


def test_what_comes_while_it_moves_is_seen_before_anything_counts(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    fill(tmp_path, chance, images=3, ratings=3)
    with psycopg.connect(database.url, autocommit=True, application_name="elsewhere") as other:

        def come(*_: object) -> None:
            other.execute("SET application_name = 'imagesearch'")

        with pytest.raises(CannotMoveState, match="connected"):
            move_state(settings_of(tmp_path), database.url, told=come)
    assert total(in_database(database.url)) == 0


def test_a_damaged_or_later_file_and_a_wrong_place_are_refused_and_left_alone(
    tmp_path: Path, database: DatabasePlace, chance: random.Random
) -> None:
    with pytest.raises(CannotMoveState, match="DATA_DIR"):
        move_state(settings_of(tmp_path / "nothing"), database.url)
    with pytest.raises(CannotMoveState, match="is DATABASE_URL what it is"):
        move_state(settings_of(tmp_path, database.url), SQLITE)
    assert list(tmp_path.iterdir()) == []
    fill(tmp_path, chance, images=3, ratings=3)
    for asked, said in (
        (SQLITE, "already"),
        ("mysql://root:hidden@there/x", "--to is"),
        ("postgresql://u:hidden@127.0.0.1:1/x", "refused"),
    ):
        with pytest.raises(CannotMoveState, match=said) as refused:
            move_state(settings_of(tmp_path), asked)
        assert "hidden" not in str(refused.value)
    with closing(sqlite3.connect(tmp_path / FEEDBACK_NAME)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(NewerRelease):
        move_state(settings_of(tmp_path), database.url)
    content = bytearray((tmp_path / LEDGER_NAME).read_bytes())
    content[4096:12_288] = bytes(8192)
    (tmp_path / LEDGER_NAME).write_bytes(content)
    with closing(sqlite3.connect(tmp_path / FEEDBACK_NAME)) as connection:
        connection.execute("PRAGMA user_version = 2")
    with pytest.raises(CannotMoveState, match="damaged"):
        move_state(settings_of(tmp_path), database.url)
    assert (tmp_path / LEDGER_NAME).read_bytes() == bytes(content)
    assert total(in_database(database.url)) == 0


# --- the product --------------------------------------------------------------------------------------------------------


async def test_after_a_move_the_watcher_finds_all_of_it_and_asks_no_model(tmp_path: Path, database: DatabasePlace) -> None:
    house = House(tmp_path)
    for number in range(6):
        house.write(f"{number % 2}/{number}.jpg", jpeg(f"p{number % 3} {number}"))
    async with house.running() as watcher:
        await settled(watcher)
    house.write("new.jpg", jpeg("p1 new"))
    fill_ratings(house.state, random.Random(1), 3)
    analysed = dict(house.embedder.analysed)
    assert len(analysed) == 6
    move_state(settings_of(house.state), database.url)
    async with house.running(SharedLedger(database)) as watcher:
        await settled(watcher, 7)
    analysed[image_id_of(jpeg("p1 new"))] = 1
    assert house.embedder.analysed == analysed
    move_state(settings_of(house.state, database.url), SQLITE, replace=True)
    async with house.running() as watcher:
        await settled(watcher, 7)
    assert house.embedder.analysed == analysed


async def settled(watcher: RunningWatcher, count: int = 6) -> None:
    async with asyncio.timeout(60):
        while (status := await watcher.catalog.status()).watcher.reconciling or status.images.indexed < count:
            await asyncio.sleep(0.02)
    assert (status.images.indexed, status.images.pending, status.images.failed) == (count, 0, 0)


@pytest.mark.e2e
@pytest.mark.long
@pytest.mark.timeout(900)
def test_begun_on_sqlite_it_goes_on_over_postgresql_and_back_with_every_rating_and_no_model_call(
    tmp_path: Path, database: DatabasePlace
) -> None:
    port = free_port()
    vectors = Process(tmp_path / "qdrant.log", sys.executable, "-m", "tests.qdrant_rest", "--port", str(port)).start()
    quick = {"MODEL_PROFILE": "starter", "QDRANT_URL": f"http://127.0.0.1:{port}", "QDRANT_PREFER_GRPC": "false"}
    try:
        with Product(tmp_path / "home", models_dir=tmp_path / "models", environment=quick) as product:
            for number, colour in enumerate(("red", "green", "blue", "yellow")):
                (product.images / f"{colour}.jpg").write_bytes(synthetic_picture(colour, "circle", 96, seed=number))
            product.start_and_wait(timeout_s=240)
            product.wait_until_indexed(4)
            tokens = [rate(product), rate(product)]
            refused = moved(product, database.url)
            assert (refused.returncode, "works with the ledger" in refused.stderr) == (1, True)
            for to, url in ((database.url, database.url), (SQLITE, None)):
                product.interrupt()
                done = moved(product, to, *([] if url else ["--replace"]))
                assert done.returncode == 0, done.stderr
                assert f"feedback     {len(tokens):>12} rows" in done.stdout
                product.environment = {key: value for key, value in product.environment.items() if key != "DATABASE_URL"}
                product.environment |= {"DATABASE_URL": url} if url else {}
                product.start_and_wait(timeout_s=240)
                settled = "no reconcile under way"
                wait_for(settled, lambda: not product.status()["watcher"]["reconciling"], timeout_s=60)
                images = product.status()["images"]
                assert (images["indexed"], images["pending"], images["failed"]) == (4, 0, 0)
                metrics = product.http.get("/metrics").text
                assert "ingestion_indexed_total{" not in metrics or 'how="analysed"} 0' in metrics, metrics
                for token in tokens:
                    answer = product.http.post("/api/v1/create-feedback", json={"user_feedback": 1, "jwt": token})
                    assert answer.status_code == 409
                tokens.append(rate(product))
                ratings = product.http.get("/api/v1/feedback").text.splitlines()
                assert len(ratings) == len(tokens)
    finally:
        vectors.end(signal.SIGKILL)


def moved(product: Product, to: str, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "standalone.moves.state", "--to", to, *more]
    return subprocess.run(command, cwd=ROOT, env=product.environment, capture_output=True, text=True, timeout=60, check=False)
