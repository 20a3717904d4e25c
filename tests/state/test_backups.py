"""Backups: taken while everything works, put back into another folder, and started from."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from core import files
from core.databases import RESTORING, RestoreBrokenOff
from core.errors import Conflict, VectorsUnavailable
from core.ports import Point
from core.schemas import Space
from core.settings import FolderSettings
from core.vectors.edge import EdgeStore
from core.vectors.edge_gate import copying
from core.vectors.server import ServerStore
from searchsvc.feedback import FeedbackStore
from searchsvc.feedback_file import FileFeedback
from searchsvc.feedback_schema import FEEDBACK_NAME
from searchsvc.secret import SECRET_NAME, jwt_key
from standalone.backups.manifest import MANIFEST, BackupUnusable, Manifest, checked
from standalone.backups.restoring import StillRunning, restore
from standalone.backups.taking import NothingToBackUp, take
from tests.qdrant_rest import RestQdrant, serving_rest
from tests.ram import ram_folder
from tests.state.damage import HARMS
from tests.state.house import RealHouse, stored
from tests.state.test_databases import rating
from tests.unit.watcher.fakes import jpeg
from watcher import database

ROOT = Path(__file__).parents[2]


@pytest.fixture
def ram() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


def settings_of(house: RealHouse) -> FolderSettings:
    return FolderSettings(images_dir=house.images, data_dir=house.state)


async def commanded(house: RealHouse, *arguments: str) -> str:
    """What the command says, run as `make` runs it."""
    environment = {**os.environ, "IMAGES_DIR": str(house.images), "DATA_DIR": str(house.state)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "standalone.backups", *arguments,
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said, complained = await asyncio.wait_for(process.communicate(), 100)
    assert process.returncode == 0, complained.decode()
    return said.decode()


def indexed_in(state: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{state / database.LEDGER_NAME}?mode=ro", uri=True)) as ledger:
        return {image_id for (image_id,) in ledger.execute("SELECT image_id FROM images WHERE state = 'indexed'")}


async def rated(path: Path) -> set[str]:
    async with FeedbackStore(FileFeedback(path)) as store:
        return {one.rating.jti async for page in store.pages() for one in page}


async def test_what_was_there_when_a_backup_began_is_there_after_it_is_restored_without_a_call_of_the_models(ram: Path) -> None:
    """Pictures come and ratings are taken all the time; the second backup is taken while they do."""
    house = RealHouse(ram / "house")
    house.fill(30)
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def ingest() -> None:
        number = 1000
        while not stop.is_set():
            house.write(f"late/{number}.jpg", jpeg(f"p{number % 4} {number}"))
            number += 1
            await asyncio.sleep(0.03)

    async def rate(store: FeedbackStore) -> None:
        while not stop.is_set():
            await store.add(rating(len(acknowledged)))
            acknowledged.append(f"token {len(acknowledged)}")

    key = jwt_key(None, house.state)
    async with house.serving() as (watcher, vectors), FeedbackStore(FileFeedback(house.state / FEEDBACK_NAME)) as feedback:
        await house.indexed(watcher, vectors)
        before = house.truth().keys()
        tasks = [asyncio.create_task(ingest()), asyncio.create_task(rate(feedback))]
        while len(acknowledged) < 50:
            await asyncio.sleep(0.01)
        promised, rated_at_begin = set(acknowledged), len(acknowledged)
        said = await commanded(house, "take", str(ram / "backup"))
        rated_meanwhile = len(acknowledged) - rated_at_begin
        stop.set()
        await asyncio.gather(*tasks)
        await house.indexed(watcher, vectors)
    manifest = checked(ram / "backup")
    print(said, f"rated meanwhile: {rated_meanwhile}")
    assert rated_meanwhile > 0

    other = RealHouse(ram / "other")
    other.images.rmdir()
    house.images.rename(other.images)
    assert "holds the backup of" in await commanded(other, "restore", str(ram / "backup"))
    in_backup = indexed_in(other.state)
    assert in_backup >= before
    assert len(in_backup) == manifest.images
    async with other.serving() as (watcher, vectors):
        await other.indexed(watcher, vectors)
        images = {record.payload["image_id"] async for record in vectors.scroll("clip")}
    assert images >= in_backup
    assert other.embedder.analysed.keys() & in_backup == set()
    assert (other.state / SECRET_NAME).stat().st_mode & 0o077 == 0
    assert jwt_key(None, other.state) == key
    assert await rated(other.state / FEEDBACK_NAME) >= promised
    async with FeedbackStore(FileFeedback(other.state / FEEDBACK_NAME)) as feedback:
        with pytest.raises(Conflict):
            await feedback.add(rating(0))


async def _made(root: Path) -> RealHouse:
    made = RealHouse(root / "house")
    made.fill(6)
    jwt_key(None, made.state)
    async with made.serving() as (watcher, vectors), FeedbackStore(FileFeedback(made.state / FEEDBACK_NAME)) as feedback:
        await made.indexed(watcher, vectors)
        await feedback.add(rating(1))
    await take(settings_of(made), root / "backup", pictures=True)
    return made


@pytest.fixture(scope="module")
def original() -> Iterator[RealHouse]:
    """What each test has a copy of: to make it anew takes seconds."""
    with ram_folder() as root:
        yield asyncio.run(_made(root))


@pytest.fixture
def house(original: RealHouse, ram: Path) -> RealHouse:
    """Closed, with some of everything, and a backup of it at `ram / "backup"`."""
    files.copy_tree_sparse(original.root.parent / "backup", ram / "backup")
    return original.copy(ram / "house")


async def test_a_backup_tells_what_it_holds_and_only_its_owner_can_read_it(house: RealHouse, ram: Path) -> None:
    manifest = checked(ram / "backup")
    assert (manifest.images, manifest.ratings, manifest.pictures, manifest.vectors) == (6, 1, 6, "edge")
    assert set(manifest.points) == {"clip", "resnet"}
    assert (ram / "backup").stat().st_mode & 0o077 == 0
    on_disk = {str(path.relative_to(ram / "backup")) for path in (ram / "backup").rglob("*") if path.is_file()}
    assert on_disk == {*manifest.files, MANIFEST}


async def test_pictures_come_back_where_they_are_missing_and_none_is_overwritten(house: RealHouse, ram: Path) -> None:
    kept, lost = sorted(house.images.rglob("*.jpg"))[:2]
    kept.write_bytes(b"another one by now")
    content = lost.read_bytes()
    lost.unlink()
    await restore(settings_of(house), ram / "backup", pictures=True)
    assert (kept.read_bytes(), lost.read_bytes()) == (b"another one by now", content)


async def test_a_picture_that_goes_while_it_is_copied_costs_no_backup_and_any_name_may_come_back(
    house: RealHouse, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, gone = files.copy_sparse, [path for path in sorted(house.images.rglob("*.jpg")) if path.parent.name == "folder 1"]
    (house.images / "folder 0" / MANIFEST).write_text("a catalogue")
    longest = house.images / f"{'n' * 251}.jpg"
    longest.write_bytes(b"a picture")

    def going(source: Path, target: Path) -> None:
        if source in gone:
            source.unlink()
        copy(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(files, "copy_sparse", going)
        manifest = await take(settings_of(house), ram / "second", pictures=True)
    assert manifest.pictures == 6 + 2 - len(gone)
    (house.images / "folder 0" / MANIFEST).unlink()
    longest.unlink()
    await restore(settings_of(house), ram / "second", pictures=True)
    assert (house.images / "folder 0" / MANIFEST).read_text() == "a catalogue"
    assert longest.read_bytes() == b"a picture"


async def test_what_was_there_before_is_kept_aside(house: RealHouse, ram: Path) -> None:
    async with FeedbackStore(FileFeedback(house.state / FEEDBACK_NAME)) as feedback:
        await feedback.add(rating(2))
    _, before = await restore(settings_of(house), ram / "backup")
    assert before is not None
    assert await rated(house.state / FEEDBACK_NAME) == {"token 1"}
    assert await rated(before / FEEDBACK_NAME) == {"token 1", "token 2"}
    assert {path.name for path in before.iterdir()} >= {database.LEDGER_NAME, "vectors", SECRET_NAME}


def _snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("harm", ["garbage_in_the_middle", "deleted"])
async def test_a_damaged_backup_is_refused_before_anything_is_touched(house: RealHouse, ram: Path, harm: str) -> None:
    whole, untouched = _snapshot(ram / "backup"), _snapshot(house.state)
    rng = random.Random(harm)
    for name in rng.sample(sorted(name for name, content in whole.items() if content), 6):
        HARMS[harm](ram / "backup" / name, rng)
        with pytest.raises(BackupUnusable):
            await restore(settings_of(house), ram / "backup")
        (ram / "backup" / name).write_bytes(whole[name])
    assert _snapshot(house.state) == untouched
    await restore(settings_of(house), ram / "backup")


async def test_a_manifest_that_leads_out_of_the_backup_is_refused(house: RealHouse, ram: Path) -> None:
    manifest = json.loads((ram / "backup" / MANIFEST).read_text())
    manifest["files"]["../house/state/jwt_secret"] = manifest["files"]["jwt_secret"]
    (ram / "backup" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BackupUnusable, match="outside"):
        await restore(settings_of(house), ram / "backup")


async def test_a_backup_of_a_newer_release_is_refused(house: RealHouse, ram: Path) -> None:
    manifest = Manifest.model_validate_json((ram / "backup" / MANIFEST).read_text()).model_dump(mode="json")
    (ram / "backup" / MANIFEST).write_text(json.dumps({**manifest, "format": 2}))
    with pytest.raises(BackupUnusable, match="newer release"):
        await restore(settings_of(house), ram / "backup")


@pytest.mark.parametrize("part", ["ledger", "feedback", "vectors"])
async def test_nothing_is_restored_while_any_part_runs(house: RealHouse, ram: Path, part: str) -> None:
    names = {"ledger": "ledger.sqlite3.lock", "feedback": "feedback.sqlite.lock", "vectors": "vectors/.lock"}
    untouched = _snapshot(house.state)
    with (house.state / names[part]).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(StillRunning):
            await restore(settings_of(house), ram / "backup")
    assert _snapshot(house.state) == untouched


class Killed(BaseException):
    pass


@contextmanager
def _failing_at(at: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The rename of that number, from 1, raises the error."""
    rename, left = Path.rename, at

    def counted(path: Path, target: Path) -> Path:
        nonlocal left
        left -= 1
        if left == 0:
            raise error
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted)
        yield


async def _small(root: Path) -> RealHouse:
    """With one picture in its ledger, and the rating `token 1`."""
    house = RealHouse(root)
    jwt_key(None, house.state)
    (house.state / "vectors").mkdir()
    kept = database.kept(house.state)
    ledger = database.opened(kept)
    ledger.execute("INSERT INTO images (image_id, state, bytes, noticed_at) VALUES ('a', 'indexed', 1, 0)")
    kept.close(ledger)
    async with FeedbackStore(FileFeedback(house.state / FEEDBACK_NAME)) as feedback:
        await feedback.add(rating(1))
    return house


async def test_a_restore_that_is_killed_anywhere_is_gone_on_with_and_nobody_starts_on_half_of_it(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each rename in turn."""
    house = await _small(ram / "house")
    await take(settings_of(house), ram / "backup")
    kills, at = 0, 1
    while True:
        trial = house.copy(ram / f"trial {at}")
        with _failing_at(at, Killed(), monkeypatch):
            try:
                await restore(settings_of(trial), ram / "backup")
            except Killed:
                kills += 1
            else:
                break
        if (trial.state / RESTORING).exists():
            with pytest.raises(RestoreBrokenOff):
                database.opened(database.kept(trial.state))
            with pytest.raises(RestoreBrokenOff):
                await EdgeStore(trial.state / "vectors").__aenter__()
        await restore(settings_of(trial), ram / "backup")
        assert not list(trial.state.glob(".restoring*"))
        assert await rated(trial.state / FEEDBACK_NAME) == {"token 1"}
        assert indexed_in(trial.state) == {"a"}
        (before,) = trial.state.glob("before-restore-*")
        assert indexed_in(before) == {"a"}
        at += 1
    assert kills > 6


async def test_after_a_restore_that_was_broken_off_another_backup_is_the_one_that_is_restored(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before each rename in turn; whatever of the first backup was put back by then, nothing of it is left."""
    house = await _small(ram / "house")
    await take(settings_of(house), ram / "first")
    async with FeedbackStore(FileFeedback(house.state / FEEDBACK_NAME)) as feedback:
        await feedback.add(rating(2))
    (house.state / SECRET_NAME).unlink()
    key = jwt_key(None, house.state)
    await take(settings_of(house), ram / "second")
    at = 1
    while True:
        trial = house.copy(ram / f"trial {at}")
        with _failing_at(at, Killed(), monkeypatch):
            try:
                await restore(settings_of(trial), ram / "first")
            except Killed:
                pass
            else:
                break
        restored, _ = await restore(settings_of(trial), ram / "second")
        assert restored == checked(ram / "second")
        assert not list(trial.state.glob(".restoring*"))
        assert await rated(trial.state / FEEDBACK_NAME) == {"token 1", "token 2"}
        assert jwt_key(None, trial.state) == key
        oldest = min(trial.state.glob("before-restore-*"))
        assert await rated(oldest / FEEDBACK_NAME) == {"token 1", "token 2"}
        at += 1
    assert at > 7


async def test_a_restore_that_fails_midway_says_that_it_was_broken_off(ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    house = await _small(ram / "house")
    await take(settings_of(house), ram / "backup")
    untouched = _snapshot(house.state)
    full = OSError(errno.ENOSPC, "No space left on device")
    with _failing_at(1, full, monkeypatch), pytest.raises(OSError, match="No space"):
        await restore(settings_of(house), ram / "backup")
    assert untouched.items() <= _snapshot(house.state).items()
    assert not (house.state / RESTORING).exists()
    with _failing_at(3, full, monkeypatch), pytest.raises(RestoreBrokenOff, match="No space"):
        await restore(settings_of(house), ram / "backup")
    await restore(settings_of(house), ram / "backup")


async def test_a_backup_that_fails_leaves_nothing_behind(house: RealHouse, ram: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileExistsError):
        await take(settings_of(house), ram / "backup")
    (house.state / "vectors" / "clip" / "edge_config.json").write_text("{")
    with pytest.raises(Exception, match="not whole"):
        await take(settings_of(house), ram / "second")
    assert not (ram / "second").exists()
    assert not list(ram.glob(".second*"))
    empty = RealHouse(ram / "empty")
    with pytest.raises(NothingToBackUp):
        await take(settings_of(empty), ram / "third")


@asynccontextmanager
async def _copying_for_ever(house: RealHouse, target: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A backup that is half-made for as long as the context lasts: the vectors are not to be had."""
    environment = {**os.environ, "IMAGES_DIR": str(house.images), "DATA_DIR": str(house.state)}
    with copying(house.state / "vectors"):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "standalone.backups", "take", str(target), cwd=ROOT, env=environment, stderr=subprocess.PIPE
        )
        try:
            async with asyncio.timeout(100):
                while not list(target.parent.glob(f".{target.name}.*.part/vectors")):
                    await asyncio.sleep(0.01)
            yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


async def test_the_next_backup_removes_what_killed_ones_left_and_nothing_of_one_that_still_runs(
    house: RealHouse, ram: Path
) -> None:
    def hidden() -> set[str]:
        return {path.name.split(".")[1] for path in ram.iterdir() if path.name.startswith(".")}

    async with _copying_for_ever(house, ram / "killed"):
        pass
    (ram / ".of-somebody-else.part").mkdir()
    assert hidden() == {"killed", "of-somebody-else"}
    async with _copying_for_ever(house, ram / "running"):
        await take(settings_of(house), ram / "second", vectors=False)
        assert hidden() == {"running", "of-somebody-else"}
    await take(settings_of(house), ram / "third")
    assert hidden() == {"of-somebody-else"}


async def test_vectors_of_another_home_are_refused(house: RealHouse, ram: Path) -> None:
    elsewhere = FolderSettings(images_dir=house.images, data_dir=house.state, qdrant_url="http://127.0.0.1:1")
    with pytest.raises(BackupUnusable, match="unset QDRANT_URL"):
        await restore(elsewhere, ram / "backup")


async def test_writes_wait_for_a_copy_and_searches_do_not(house: RealHouse) -> None:
    async with house.serving() as (_, vectors):
        held = await stored(vectors)
        point_id, ((*vector,), _) = next(iter(held["clip"].items()))
        (record,) = await vectors.retrieve("clip", [point_id], with_vectors=True)
        assert record.vector is not None
        with copying(house.state / "vectors"):
            writing = asyncio.create_task(vectors.upsert("clip", [Point(point_id, record.vector, record.payload)]))
            assert len(await vectors.query("clip", record.vector, limit=3)) == 3
            assert await vectors.count("clip") == len(held["clip"])
            assert not writing.done()
        async with asyncio.timeout(5):
            await writing
        assert len(vector) == 4


def test_holes_stay_holes_in_a_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with source.open("wb") as file:
        file.write(b"head")
        file.seek(2**22)
        file.write(b"middle")
        file.truncate(2**23)
    files.copy_sparse(source, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()
    assert (tmp_path / "copy").stat().st_blocks <= source.stat().st_blocks + 8
    assert (tmp_path / "copy").stat().st_mtime_ns == source.stat().st_mtime_ns
    (tmp_path / "empty").touch()
    files.copy_sparse(tmp_path / "empty", tmp_path / "other")
    assert (tmp_path / "other").stat().st_size == 0


async def test_a_backup_may_lie_on_another_disk(house: RealHouse, tmp_path: Path) -> None:
    if house.state.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one disk only")
    manifest = await take(settings_of(house), tmp_path / "backup", pictures=True)
    with (tmp_path / "sparse").open("wb") as file:
        file.seek(2**22)
        file.write(b"middle")
        file.truncate(2**23)
    files.copy_sparse(tmp_path / "sparse", house.root / "copy")
    assert (house.root / "copy").read_bytes() == (tmp_path / "sparse").read_bytes()
    assert (house.root / "copy").stat().st_blocks <= (tmp_path / "sparse").stat().st_blocks + 8
    restored, _ = await restore(settings_of(house), tmp_path / "backup", pictures=True)
    assert restored == manifest


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")
async def test_vectors_on_a_server_are_backed_up_as_its_snapshots_and_put_back(ram: Path) -> None:
    house = RealHouse(ram / "house")
    jwt_key(None, house.state)
    space, point_id = Space(collection="clip", model_name="CLIP", dim=4, text=True), "11111111-1111-1111-1111-111111111111"
    point = Point(point_id, np.array([1, 0, 0, 0], dtype=np.float32), {"kind": "image"})
    server = RestQdrant(api_key="key")
    async with serving_rest(server, 0) as url:
        settings = FolderSettings(
            images_dir=house.images, data_dir=house.state, qdrant_url=url, qdrant_api_key="key", qdrant_prefer_grpc=False
        )
        async with ServerStore.of(settings, url) as store:
            await store.ensure(space)
            await store.upsert("clip", [point])
            manifest = await take(settings, ram / "backup")
            assert (manifest.vectors, manifest.points) == ("server", {"clip": 1})
            assert server.snapshots == {}
            await store.upsert("clip", [Point(point_id, -point.vector, {"kind": "segment"})])
            await restore(settings, ram / "backup")
            (record,) = await store.retrieve("clip", [point_id], with_vectors=True)
            assert record.payload == point.payload
            assert record.vector is not None
            assert record.vector.tolist() == point.vector.tolist()
        elsewhere = settings.model_copy(update={"qdrant_api_key": "wrong"})
        with pytest.raises(VectorsUnavailable):
            await take(elsewhere, ram / "second")
        assert not (ram / "second").exists()
        with pytest.raises(VectorsUnavailable):
            await restore(elsewhere, ram / "backup")
        assert not (house.state / RESTORING).exists()


async def test_with_a_database_url_the_databases_are_left_out_and_that_is_said(
    ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = RealHouse(ram / "house")
    house.fill(2)
    async with house.serving() as (watcher, vectors):
        await house.indexed(watcher, vectors)
    await commanded(house, "take", str(ram / "of-files"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:password@127.0.0.1:1/none")
    said = await commanded(house, "take", str(ram / "backup"))
    assert "pg_dump" in said
    assert "password" not in said
    manifest = checked(ram / "backup")
    assert (manifest.images, manifest.ratings, len(manifest.points) > 0) == (None, None, True)
    assert not (ram / "backup" / database.LEDGER_NAME).exists()
    assert "pg_dump" in await commanded(house, "restore", str(ram / "backup"))
    settings = settings_of(house).model_copy(update={"database_url": "postgresql://x/y"})
    with pytest.raises(BackupUnusable, match="unset DATABASE_URL"):
        await restore(settings, ram / "of-files")
