"""Thousands of pictures brought into the real search service, over a catalog that indexes what it is told of."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.errors import Reason
from core.problems import problem
from core.schemas import ImageRecord, ImageState, ImageStates
from imagesearch.__main__ import main
from imagesearch.backfill.journal import Journal
from imagesearch.backfill.rows import Kind, Naming
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.buckets import FakeS3
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, image_id_of, picture
from tests.ram import ram_folder
from tests.unit.searchsvc.conftest import SECRET

_REPOSITORY = Path(__file__).resolve().parents[3]
SEED = int(os.environ.get("FAULT_SEED", "20261121"))
COLOURS = ("red", "green", "blue", "yellow", "white", "black")


@dataclass
class IndexingCatalog(FakeCatalog):
    """Knows what it was told of and finds in the folder; whoever looks finds it indexed the next time, or failed where it is `poison`."""

    images: Path = Path()
    poison: set[str] = field(default_factory=set)

    async def notice(self, path: str, *, backfill: bool = False) -> ImageRecord:
        await super().notice(path, backfill=backfill)
        content = (self.images / path).read_bytes()
        image_id = image_id_of(content)
        record = self.records.get(image_id) or ImageRecord(
            image_id=image_id, state=ImageState.PENDING, paths=(), bytes=len(content), noticed_at=datetime.now(UTC)
        )
        paths = tuple(sorted({*record.paths, path}))
        self.records[image_id] = record.model_copy(update={"paths": paths})
        return self.records[image_id]

    async def hint(self, paths: Sequence[str], *, backfill: bool = False) -> int:
        taken = await super().hint(paths)
        for path in paths:
            if (self.images / path).exists():
                await self.notice(path, backfill=backfill)
        return taken

    async def states(self, image_ids: Any, paths: Any = ()) -> ImageStates:
        told = await super().states(image_ids, paths)
        for image_id in {*image_ids, *(one.image_id for one in told.paths)} & set(self.records):
            failed = image_id in self.poison
            settled = {"state": ImageState.FAILED, "reason": Reason.CORRUPT} if failed else {"state": ImageState.INDEXED}
            self.records[image_id] = self.records[image_id].model_copy(update=settled)
        return told


@dataclass
class Service:
    """`acknowledged` counts the answers 202 that each image was given; `misbehave` may answer instead, or after, the service."""

    images: Path
    catalog: IndexingCatalog
    url: str = ""
    acknowledged: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    misbehave: Callable[[web.Request, bool], web.Response | None] = lambda request, done: None

    @web.middleware
    async def watch(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests[request.path] += 1
        if (refusal := self.misbehave(request, False)) is not None:
            return refusal
        answer: web.Response = await handler(request)
        if request.path == "/api/v1/images" and answer.status == 202:
            self.acknowledged[json.loads(answer.text or "")["image_id"]] += 1
        return self.misbehave(request, True) or answer


@pytest.fixture
def memory() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


@pytest.fixture
async def service(memory: Path) -> AsyncIterator[Service]:
    images = memory / "images"
    images.mkdir()
    service = Service(images, IndexingCatalog(images=images))
    settings = SearchSettings(images_dir=images, data_dir=memory / "state", jwt_secret=SECRET)
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=service.catalog)
    app.middlewares.append(service.watch)
    with structlog.testing.capture_logs():
        async with TestServer(app) as server:
            service.url = str(server.make_url("")).rstrip("/")
            yield service


@dataclass
class Stock:
    """`rows` of a manifest: mostly pictures, with some missing, some broken, some twice, and some that name nothing."""

    rows: list[dict[str, str]]
    distinct: set[str]
    bad: Counter[str]


def stocked(home: Path, rows: int) -> Stock:
    """Every 20th row is bad in its turn, every 10th is one of before."""
    stock = Stock([], set(), Counter())
    for n in range(rows):
        path = home / f"{n % 7}" / f"{n}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        content = picture(COLOURS[n % 6], size=(8, 6), mark=n if n % 10 else max(0, n - 11))
        row = {"path": path.relative_to(home).as_posix(), "url": "", "sha256": image_id_of(content) if n % 3 else ""}
        match n % 20, n % 80 // 20:
            case 5, 0:
                stock.bad["missing"] += 1
            case 5, 1:
                path.write_bytes(b"no picture")
                row["sha256"] = ""
                stock.bad["not_an_image"] += 1
            case 5, 2:
                path.write_bytes(picture("red", mark=n, size=(9, 9)))
                row["sha256"] = "0" * 64
                stock.bad["differs"] += 1
            case 5, 3:
                row = {"path": "", "url": "ftp://x/y.png" if n % 160 < 80 else "", "sha256": ""}
                stock.bad["bad_row"] += 1
            case _:
                path.write_bytes(content)
                stock.distinct.add(image_id_of(content))
        stock.rows.append(row)
    return stock


def written(stock: Stock, file: Path) -> Path:
    if file.suffix == ".csv":
        with file.open("w", newline="") as opened:
            table = csv.DictWriter(opened, ["path", "url", "sha256"])
            table.writeheader()
            table.writerows(stock.rows)
    else:
        rows = [{name: value or None for name, value in row.items()} for row in stock.rows]
        pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=300)
    return file


async def backfill(service: Service, *arguments: object) -> int:
    given = ["backfill", *map(str, arguments), "--url", service.url, "--look-every-s", "0.25"]
    return await asyncio.to_thread(main, given)


def report_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return found


def agrees(service: Service, stock: Stock, report: dict[str, Any]) -> None:
    """Every good row came to its end, every bad one is told, and nothing was sent twice."""
    assert set(service.acknowledged) == stock.distinct
    assert set(service.acknowledged.values()) == {1}
    assert report["reasons"] == dict(stock.bad)
    assert (report["rows"], report["parked"], report["left"]) == (len(stock.rows), stock.bad.total(), {})
    assert report["indexed"] == len(stock.rows) - stock.bad.total() == report["uploaded"] + report["known"]
    assert set(service.catalog.backfilled) == set(service.catalog.noticed)


@pytest.mark.parametrize(
    ("suffix", "rows"),
    [(".csv", 400), (".parquet", 400), pytest.param(".parquet", 2000, marks=[pytest.mark.long, pytest.mark.timeout(900)])],
)
async def test_rows_of_which_some_are_broken_missing_and_double_end_as_they_must(
    service: Service, tmp_path: Path, suffix: str, rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "pictures"
    stock = stocked(home, rows)
    manifest = written(stock, home / f"all{suffix}")
    assert await backfill(service, manifest) == 1
    folder = manifest.with_name(f"{manifest.name}.backfill")
    agrees(service, stock, report_of(folder))
    assert report_of(folder)["uploaded"] == len(stock.distinct)
    assert (service.images / "1" / "1.png").exists()
    told = (folder / "report.md").read_text()
    assert "`missing`" in told
    assert "--retry" in told
    asked = service.requests.copy()
    assert await backfill(service, manifest) == 1, "all that is left is what was given up"
    assert service.requests["/api/v1/images"] == asked["/api/v1/images"]
    assert capsys.readouterr().out


async def test_killed_in_the_middle_time_after_time_it_goes_on_and_sends_nothing_twice(service: Service, tmp_path: Path) -> None:
    print(f"FAULT_SEED={SEED}")
    rng = random.Random(SEED)
    home = tmp_path / "pictures"
    stock = stocked(home, 600)
    manifest = written(stock, home / "all.parquet")
    command = (sys.executable, "-m", "imagesearch", "backfill", str(manifest), "--url", service.url, "--look-every-s", "0.05")
    for kill in range(4):
        child = await asyncio.create_subprocess_exec(*command, cwd=_REPOSITORY, stdout=-1, stderr=-1)
        enough = service.acknowledged.total() + rng.randrange(1, 120)
        while service.acknowledged.total() < enough and child.returncode is None:
            await asyncio.sleep(0.005)
        assert child.returncode is None, f"it ended before kill {kill}: {await child.communicate()!r}"
        child.send_signal(signal.SIGKILL)
        await child.communicate()
    child = await asyncio.create_subprocess_exec(*command, cwd=_REPOSITORY, stdout=-1, stderr=-1)
    out, err = await child.communicate()
    assert child.returncode == 1, (out, err)
    agrees(service, stock, report_of(manifest.with_name("all.parquet.backfill")))


async def test_a_service_that_refuses_half_the_time_and_loses_answers_gets_everything_once(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch.backfill.pace._FIRST_PAUSE_S", 0.005)
    monkeypatch.setattr("imagesearch.backfill.pace._LONGEST_PAUSE_S", 0.05)
    print(f"FAULT_SEED={SEED}")
    rng = random.Random(SEED)

    def misbehave(request: web.Request, done: bool) -> web.Response | None:
        if not done and rng.random() < 0.5:
            return problem(rng.choice((429, 503)), "busy", request_id="r", headers={"Retry-After": "0"})
        if done and rng.random() < 0.05 and request.transport is not None:
            request.transport.close()  # what was done is done, and nobody hears of it
        return None

    service.misbehave = misbehave
    home = tmp_path / "pictures"
    stock = stocked(home, 400)
    manifest = written(stock, home / "all.csv")
    assert await backfill(service, manifest, "--at-once", 8) == 1
    report = report_of(home / "all.csv.backfill")
    assert report["reasons"] == dict(stock.bad)
    assert set(service.acknowledged) == stock.distinct
    assert report["indexed"] == len(stock.rows) - stock.bad.total()
    assert len(service.catalog.noticed) == len(stock.distinct), "each was stored once"


async def test_a_picture_that_the_service_keeps_failing_on_is_given_up_and_the_others_go_on(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch.backfill.pace._FIRST_PAUSE_S", 0.005)
    home = tmp_path / "pictures"
    home.mkdir()
    for n in range(20):
        (home / f"{n}.png").write_bytes(picture("red", mark=n, size=(8, 8)))
    (home / "poison.png").write_bytes(picture("blue", mark=300, size=(400, 400)))

    def misbehave(request: web.Request, done: bool) -> web.Response | None:
        of_poison = request.path == "/api/v1/images" and (request.content_length or 0) > 1200
        return problem(500, "broken", request_id="r") if of_poison and not done else None

    service.misbehave = misbehave
    service.catalog.poison.add(image_id_of((home / "3.png").read_bytes()))
    state = tmp_path / "state of it"
    assert await backfill(service, home, "--state", state) == 1
    report = report_of(state)
    assert report["reasons"] == {"internal_server_error": 1, "corrupt": 1}
    assert report["indexed"] == 19
    service.misbehave = lambda request, done: None
    assert await backfill(service, home, "--state", state, "--retry") == 1
    assert report_of(state)["reasons"] == {"corrupt": 1}


async def test_folders_go_on_behind_any_path_and_what_lies_in_the_watched_one_is_only_followed(
    service: Service, tmp_path: Path
) -> None:
    home = tmp_path / "archive"
    names = ["a.png", "a/b.png", "a/b/c.png", "a-b.png", "z/ü 'x'.png", ".hidden.png", "notes.txt"]
    for n, name in enumerate(names):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(picture("green", mark=n, size=(8, 8)))
    state = tmp_path / "journal"
    for _ in range(5):
        assert await backfill(service, home, "--state", state, "--folder", "old", "--limit", 1) == 0
    assert report_of(state)["indexed"] == 5
    assert sorted(service.catalog.noticed) == sorted(f"old/archive/{name}" for name in names[:5])
    assert await backfill(service, home, "--state", state) == 0
    sent = service.requests["/api/v1/images"]
    (service.images / "new").mkdir()
    (service.images / "new" / "one.png").write_bytes(picture("red", size=(8, 8)))
    assert await backfill(service, service.images, "--watched", service.images) == 0
    assert service.requests["/api/v1/images"] == sent
    assert "new/one.png" in service.catalog.backfilled
    manifest = tmp_path / "keys.csv"
    manifest.write_text("key\nnew/one.png\n/old/archive/a.png\n")
    assert await backfill(service, manifest, "--json") == 0
    assert report_of(tmp_path / "keys.csv.backfill")["indexed"] == 2


@pytest.mark.parametrize("key", ["/", "//", "/   ", "a/../b.png", "..", "./a.png", "a//b.png", "a/", ".hidden/a.png", "x" * 5000])
async def test_a_key_that_nobody_would_ever_look_at_is_a_bad_row_at_once(service: Service, tmp_path: Path, key: str) -> None:
    (service.images / "lies.png").write_bytes(picture("red", size=(8, 8)))
    manifest = tmp_path / "keys.csv"
    manifest.write_text(f"key\n{key}\nlies.png\n")
    assert await backfill(service, manifest, "--json") == 1
    report = report_of(tmp_path / "keys.csv.backfill")
    assert (report["indexed"], report["reasons"]) == (1, {"bad_row": 1})
    assert service.catalog.hinted == ["lies.png"]


async def test_what_is_not_utf_8_costs_its_own_row_alone(service: Service, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture("red", size=(8, 8)))
    manifest = tmp_path / "latin.csv"
    manifest.write_bytes(b"path,url,name\n,http://127.0.0.1/\xfc.png,\na.png,,\xfc.png\na.png,,\nb\xfc.png,,\n")
    assert await backfill(service, manifest) == 1
    report = report_of(tmp_path / "latin.csv.backfill")
    assert (report["indexed"], report["reasons"]) == (1, {"bad_row": 3})
    odd = tmp_path / os.fsdecode(b"f\xfc")
    odd.mkdir()
    (odd / "a.png").write_bytes(picture("red", size=(8, 8)))
    assert await backfill(service, odd, "--state", tmp_path / "journal") == 1
    assert report_of(tmp_path / "journal")["source"] == str(odd)
    other = tmp_path / os.fsdecode(b"f\xfd")
    other.mkdir()
    assert await backfill(service, other, "--state", tmp_path / "journal") == 2, "the journal is of another folder"
    assert await backfill(service, manifest, "--folder", os.fsdecode(b"\xfc")) == 2


def test_what_lies_beyond_the_watched_folder_is_brought_although_its_name_begins_there() -> None:
    row = Naming(watched="/pictures").local(Path("/pictures/../elsewhere/a.png"), PurePosixPath("a.png"))
    assert (row.kind, row.place) == (Kind.FILE, "/pictures/../elsewhere/a.png")
    assert Naming(watched="s3://b/p").address("s3://b/p/a/../b.png").kind is Kind.NONE


async def test_addresses_are_fetched_and_those_that_lead_nowhere_are_given_up(service: Service, tmp_path: Path) -> None:
    turns = Counter[str]()

    async def serve(request: web.Request) -> web.Response:
        turns[request.path] += 1
        if request.path == "/flaky.png" and turns[request.path] < 2:
            return web.Response(status=503)
        if request.path == "/gone.png":
            return web.Response(status=410)
        return web.Response(body=picture("blue", size=(8, 8), mark=len(request.path)))

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    async with TestServer(app) as server:
        manifest = tmp_path / "urls.csv"
        rows = [f"{server.make_url(path)}," for path in ("/2019/one.png", "/flaky.png", "/gone.png")]
        manifest.write_text("\n".join(["url,name", *rows, f"{server.make_url('/x.png')},named/by me.png", "http://u:p@h/x.png,"]))
        assert await backfill(service, manifest) == 1
    report = report_of(tmp_path / "urls.csv.backfill")
    assert report["reasons"] == {"http_410": 1, "bad_row": 1}
    assert sorted(service.catalog.noticed) == ["2019/one.png", "flaky.png", "named/by me.png"]
    assert "u:p" not in (tmp_path / "urls.csv.backfill" / "report.md").read_text()


async def test_a_bucket_is_brought_and_gone_on_with_whatever_its_names(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeS3() as s3:
        for name, value in (("ACCESS_KEY_ID", "AKIDEXAMPLE"), ("SECRET_ACCESS_KEY", "secret"), ("REGION", "us-east-1")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        bucket = s3.bucket("archive")
        contents = {f"photos/{n % 3}/{n}.png": picture("red", mark=n, size=(8, 8)) for n in range(30)}
        bucket.fill({**contents, "photos/readme.txt": b"no picture", "elsewhere/x.png": picture("blue")})
        bucket.fill({"photos/1//odd.png": picture("blue"), "photos/1/../up.png": picture("blue"), "photos/2/": b""})
        for most in (11, 50):  # the first run ends at an odd one
            assert await backfill(service, "s3://archive/photos", "--state", tmp_path / "journal", "--limit", most) in {0, 1}
    report = report_of(tmp_path / "journal")
    assert (report["indexed"], report["reasons"]) == (30, {"bad_row": 2})
    assert [one["detail"] for one in report["first_failures"]] == [
        f"no object of such a name can be asked for: s3://archive/photos/1/{name}" for name in ("../up.png", "/odd.png")
    ]
    assert sorted(service.catalog.noticed) == sorted(contents)


async def test_one_backfill_at_a_time_has_a_journal_and_it_is_of_one_source(
    service: Service, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = tmp_path / "a.csv"
    manifest.write_text("path\nmissing.png\n")
    state = tmp_path / "journal"
    with Journal(state / "journal.sqlite", "mine"):
        assert await backfill(service, manifest, "--state", state) == 2
    assert "under way" in capsys.readouterr().err
    assert await backfill(service, manifest, "--state", state) == 2
    assert "is of mine" in capsys.readouterr().err
    manifest.write_text("colour\nred\n")
    assert await backfill(service, manifest) == 2
    assert "none of the columns" in capsys.readouterr().err


async def test_patience_ends_with_a_report_and_a_key_that_is_wrong_ends_at_once(service: Service, tmp_path: Path) -> None:
    for n in range(30):
        (tmp_path / f"{n}.png").write_bytes(picture("red", mark=n, size=(8, 8)))
    state = tmp_path / "journal"
    for status, code in ((503, 3), (401, 4)):
        service.misbehave = lambda request, done, status=status: problem(status, "no", request_id="r")
        assert await backfill(service, tmp_path, "--state", state, "--patience-s", "0.3") == code
        assert report_of(state)["ended"].startswith("It ended early")
        assert report_of(state)["parked"] == 0
    service.misbehave = lambda request, done: None
    assert await backfill(service, tmp_path, "--state", state) == 0
    assert report_of(state)["indexed"] == 30


@pytest.mark.parametrize(
    ("suffix", "rows"),
    [(".csv", 20_000), (".parquet", 20_000), *(pytest.param(s, 1_000_000, marks=pytest.mark.long) for s in (".csv", ".parquet"))],
)
def test_a_manifest_is_read_in_flat_memory(tmp_path: Path, suffix: str, rows: int) -> None:
    small, large = (manifest_of(tmp_path / f"{n}{suffix}", n) for n in (1000, rows))
    (_, before), (told, after) = dry(small), dry(large)
    assert told["rows"] == rows
    assert told["to_send"] + told["bad_rows"] == rows
    assert after - before < 64 * 2**20, f"{(after - before) / 2**20:.0f} MB more"


def manifest_of(file: Path, rows: int) -> Path:
    if file.suffix == ".csv":
        with file.open("w") as opened:
            opened.write("url,sha256\n")
            opened.writelines(f"https://example.org/{n % 1000}/{n}.jpg,{n:064x}\n" if n % 50 else ",\n" for n in range(rows))
        return file
    schema = pa.schema([("url", pa.string()), ("sha256", pa.string())])
    with pq.ParquetWriter(file, schema) as writer:
        for first in range(0, rows, 10_000):
            told = [
                {"url": f"https://example.org/{n}.jpg" if n % 50 else None, "sha256": None}
                for n in range(first, min(rows, first + 10_000))
            ]
            writer.write_table(pa.Table.from_pylist(told, schema))
    return file


def dry(manifest: Path) -> tuple[dict[str, int], int]:
    """What a dry run tells, and its peak memory in bytes."""
    script = (
        "import resource, sys; from imagesearch.__main__ import main;"
        "code = main(sys.argv[1:]); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    command = [sys.executable, "-c", script, "backfill", str(manifest), "--dry-run", "--json"]
    ended = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout), int(ended.stderr) * 1024
