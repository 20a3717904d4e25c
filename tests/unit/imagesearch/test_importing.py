"""Vectors from elsewhere, brought by the command into real services over fakes: from one installation to another, and as others leave them."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog
from aiohttp.test_utils import TestServer

from core.errors import ModelUnavailable
from core.schemas import BBox, ImageAnalysis, ImageState, ModelCard, Priority, SegmentMode
from imagesearch.__main__ import main
from imagesearch.backfill.manifests import ParquetManifest
from imagesearch.backfill.rows import Naming, UnreadableSource
from imagesearch.client import Client
from imagesearch.importing.sources import Reading, Vectors, vector_files
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import READY, TEXT_SPACE, FakeEmbedder, FakeVectorStore, image_id_of, picture
from watcher.app import running_watcher
from watcher.settings import WatcherSettings

SEGMENTER = ModelCard(role="segmenter", model_name="S", source="s", revision="1", runtime="r", device="cpu", precision="fp32")
MODELS = READY.model_copy(update={"models": (*READY.models, SEGMENTER)})
COLOURS = ["red", "green", "blue"]


class Held(FakeEmbedder):
    """Nothing is ingested by the models until it is released; comparisons are made."""

    released = False
    full = 0

    async def analyse(
        self,
        image: bytes,
        *,
        segments: SegmentMode = SegmentMode.STANDARD,
        priority: Priority = Priority.INGEST,
        region: BBox | None = None,
        fingerprint: str | None = None,
    ) -> ImageAnalysis:
        if priority is Priority.INGEST and segments is not SegmentMode.NONE:
            if not self.released:
                raise ModelUnavailable("held", retry_after_s=0.2)
            self.full += 1
        return await super().analyse(image, segments=segments, priority=priority, region=region, fingerprint=fingerprint)


@dataclass
class Installation:
    images: Path
    url: str
    embedder: Held
    vectors: FakeVectorStore

    def copy(self, contents: list[bytes]) -> list[str]:
        for n, content in enumerate(contents):
            (self.images / f"{n}.png").write_bytes(content)
        return list(map(image_id_of, contents))

    async def indexed(self, count: int) -> None:
        with Client(self.url) as client:
            async with asyncio.timeout(30):
                while (await asyncio.to_thread(client.status)).images.indexed < count:
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def installation(root: Path) -> AsyncIterator[Installation]:
    """Watcher and search service, as in one process."""
    (root / "images").mkdir(parents=True)
    place: dict[str, Any] = {"images_dir": root / "images", "data_dir": root / "state"}
    embedder, vectors = Held(models=MODELS), FakeVectorStore()
    async with AsyncExitStack() as stack:
        settings = WatcherSettings(**place, settle_s=0.2, retry_min_s=0.02, outage_retry_max_s=0.2, shutdown_grace_s=0.1)
        watcher = await stack.enter_async_context(running_watcher(settings, embedder, vectors))
        chosen = SearchSettings(**place, jwt_secret="s" * 40)
        server = TestServer(create_app(chosen, embedder=embedder, vectors=vectors, catalog=watcher.catalog))
        await server.start_server()
        stack.push_async_callback(server.close)
        yield Installation(root / "images", str(server.make_url("")).rstrip("/"), embedder, vectors)


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path / "here") as one:
        yield one


@pytest.fixture(autouse=True)
def quiet_service() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


async def command(one: Installation, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["embeddings", *arguments, "--url", one.url])


def pictures(count: int) -> list[bytes]:
    return [picture(COLOURS[n % 3], mark=n) for n in range(count)]


async def vectors_of(contents: list[bytes]) -> np.ndarray[Any, np.dtype[np.float32]]:
    made = [await FakeEmbedder().analyse(content) for content in contents]
    return np.stack([one.embeddings[0].vector for one in made])


def table(file: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), file, row_group_size=4)
    return file


def report_of(place: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((Path(f"{place}.import") / "report.json").read_text())
    return told


async def test_what_one_installation_exports_another_takes_and_answers_alike_without_models(
    here: Installation, tmp_path: Path
) -> None:
    contents = pictures(25)
    out = tmp_path / "out"
    async with installation(tmp_path / "there") as there:
        there.embedder.released = True
        there.copy(contents)
        await there.indexed(25)
        assert await command(there, "export", str(out), "--complete", "--part-pages", "1") == 0
        assert await command(there, "export", str(out), "--complete") == 0
        here.copy(contents)
        assert await command(here, "import", str(out)) == 0
        await here.indexed(25)
        for question in (
            {"text": "red"},
            {"text": "blue", "scope": "segments"},
            {"text": "green", "model": "CLIP", "scope": "both"},
        ):
            with Client(there.url) as one, Client(here.url) as other:
                first = await asyncio.to_thread(one.search, **question)
                second = await asyncio.to_thread(other.search, **question)
            told = [[(hit.image_id, hit.score, hit.segment) for hit in answer.matches] for answer in (first, second)]
            assert told[0] == told[1]
            assert told[0]
        assert here.vectors.stored.keys() == there.vectors.stored.keys()
        for collection, held in there.vectors.stored.items():
            own = here.vectors.stored[collection]
            assert own.keys() == held.keys()
            assert all(np.array_equal(own[key].vector, held[key].vector) for key in held)
            different = {"taken_at", "paths"}  # of the file, where the picture does not tell
            for key, point in held.items():
                assert {k: v for k, v in own[key].payload.items() if k not in different} == {
                    k: v for k, v in point.payload.items() if k not in different
                }
    here.embedder.released = True
    await asyncio.sleep(0.5)
    assert here.embedder.full == 0
    told = report_of(out)
    assert (told["rows"], told["indexed"], told["uploaded"], told["parked"]) == (25, 25, 25, 0)
    assert await command(here, "import", str(out), "--state", str(tmp_path / "again")) == 0
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert (again["known"], again["uploaded"]) == (25, 0)


async def test_single_vectors_make_pictures_found_and_the_rest_follows(here: Installation, tmp_path: Path) -> None:
    contents = pictures(9)
    ids = here.copy(contents)
    file = table(tmp_path / "v.parquet", {"image_id": ids, "embedding": list(7 * await vectors_of(contents))})
    assert await command(here, "import", str(file), "--model", "CLIP") == 0
    with Client(here.url) as client:
        found = await asyncio.to_thread(client.search, "red", top_k=9)
        assert {hit.image_id for hit in found.matches} == set(ids)
        record = await asyncio.to_thread(client.image, ids[0])
        assert (record.state, record.segments) == (ImageState.INDEXED, 0)
        here.embedder.released = True
        async with asyncio.timeout(30):
            while (await asyncio.to_thread(client.status)).segments < 9:
                await asyncio.sleep(0.05)
    assert here.embedder.full == 9


async def test_a_folder_of_clip_retrieval_and_a_npy_with_a_table_are_taken_by_their_paths(
    here: Installation, tmp_path: Path
) -> None:
    contents = pictures(6)
    here.copy(contents)
    numbers = await vectors_of(contents)
    folder = tmp_path / "clip"
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for part in (0, 1):
        np.save(folder / "img_emb" / f"img_emb_{part}.npy", numbers[3 * part : 3 * part + 3].astype(np.float16))
        paths = [f"{here.images}/{n}.png" for n in range(3 * part, 3 * part + 3)]
        table(folder / "metadata" / f"metadata_{part}.parquet", {"image_path": paths})
    assert await command(here, "import", str(folder), "--model", "CLIP", "--watched", str(here.images)) == 0
    assert report_of(folder)["uploaded"] == 6
    np.save(tmp_path / "all.npy", numbers)
    with (tmp_path / "all.csv").open("w", newline="") as written:
        csv.writer(written).writerows([["path"], *([f"{n}.png"] for n in range(6))])
    line = ["import", str(tmp_path / "all.npy"), "--metadata", str(tmp_path / "all.csv"), "--model", "CLIP"]
    assert await command(here, *line) == 0
    assert report_of(tmp_path / "all.npy")["known"] == 6
    (tmp_path / "all.csv").write_text("path\n0.png\n")
    assert await command(here, *line, "--state", str(tmp_path / "short")) == 2, "not as many pictures as vectors"


async def test_pictures_that_are_not_there_are_waited_for_and_then_given_up_until_they_come(
    here: Installation, tmp_path: Path
) -> None:
    contents = pictures(4)
    ids = list(map(image_id_of, contents))
    file = table(tmp_path / "v.parquet", {"image_id": ids, "vector": list(await vectors_of(contents))})
    line = ["import", str(file), "--model", "CLIP"]
    running = asyncio.create_task(command(here, *line, "--wait-s", "8"))
    await asyncio.sleep(1)
    here.copy(contents[:3])
    assert await running == 1
    told = report_of(file)
    assert (told["indexed"], told["reasons"]) == (3, {"not_seen": 1})
    here.copy(contents)
    assert await command(here, *line, "--retry") == 0
    assert report_of(file)["indexed"] == 4


async def test_what_these_models_did_not_make_is_refused(here: Installation, tmp_path: Path) -> None:
    contents = pictures(5)
    ids = here.copy(contents)
    numbers = await vectors_of(contents)

    async def taken(name: str, columns: dict[str, Any], *more: str) -> int:
        return await command(here, "import", str(table(tmp_path / f"{name}.parquet", columns)), "--wait-s", "30", *more)

    other = np.roll(numbers, 3, axis=1)
    assert await taken("other", {"image_id": ids, "vector": list(other)}, "--model", "CLIP") == 4
    assert await taken("mixed", {"image_id": ids, "vector": list(np.roll(numbers, 1, axis=0))}, "--model", "CLIP") == 4
    assert await taken("short", {"image_id": ids, "vector": list(numbers[:, :4])}, "--model", "CLIP") == 2
    assert await taken("named", {"image_id": ids, "vector": list(numbers), "collection": ["x"] * 5}) == 2
    assert await taken("nobody", {"image_id": ids, "vector": list(numbers)}, "--model", "nobody") == 2
    assert await taken("column", {"image_id": ids, "numbers": list(numbers)}) == 2
    assert not here.vectors.stored.get(TEXT_SPACE.collection)
    assert await taken("told", {"image_id": ids, "vector": list(numbers), "collection": ["x"] * 5}, "--model", "CLIP") == 0
    wrong = [*numbers, np.full(numbers.shape[1], np.nan, dtype=np.float32)]
    assert await taken("nan", {"path": [*(f"{n}.png" for n in range(5)), "0.png"], "vector": wrong}, "--model", "CLIP") == 1
    assert report_of(tmp_path / "nan.parquet")["reasons"] == {"refused": 1}


async def test_an_import_that_is_killed_goes_on_where_it_was(here: Installation, tmp_path: Path) -> None:
    contents = pictures(60)
    here.copy(contents)
    paths = [f"{n}.png" for n in range(60)] + [f"not there {n}.png" for n in range(2000)]
    numbers = np.resize(await vectors_of(contents), (2060, TEXT_SPACE.dim))
    file = table(tmp_path / "v.parquet", {"path": paths, "vector": list(numbers)})
    line = [sys.executable, "-m", "imagesearch", "embeddings", "import", str(file), "--url", here.url, "--model", "CLIP"]
    killed = await asyncio.create_subprocess_exec(*line, stderr=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(60):
        while len(here.vectors.stored.get(TEXT_SPACE.collection, {})) < 20:
            await asyncio.sleep(0.02)
    os.kill(killed.pid, signal.SIGKILL)
    await killed.wait()
    assert await command(here, "import", str(file), "--model", "CLIP", "--wait-s", "2") == 1
    told = report_of(file)
    assert (told["rows"], told["indexed"], told["reasons"]) == (2060, 60, {"not_seen": 2000})
    assert len(here.vectors.stored[TEXT_SPACE.collection]) == 60


def test_rows_are_read_from_any_one_on(tmp_path: Path) -> None:
    numbers = np.arange(30 * TEXT_SPACE.dim, dtype=np.float32).reshape(30, -1)
    for part in range(3):
        rows = slice(10 * part, 10 * part + 10)
        table(tmp_path / f"part-{part}.parquet", {"path": [f"{n}.png" for n in range(30)[rows]], "vector": list(numbers[rows])})
    source = Vectors(vector_files(tmp_path, None), Reading(TEXT_SPACE, stated=True))
    assert source.total == 30
    for first in range(31):
        read = [(batch.first + n, given) for batch in source.batches(first) for n, given in enumerate(batch.given)]
        assert [n for n, _ in read] == list(range(first, 30))
        for n, given in read:
            assert given is not None
            assert given.path == f"{n}.png"
            assert np.array_equal(given.embeddings[0].vector, numbers[n])


def read_all(place: Path, metadata: Path | None = None, **reading: Any) -> list[Any]:
    source = Vectors(vector_files(place, metadata), Reading(TEXT_SPACE, stated=True, **reading))
    return [given for batch in source.batches(0) for given in batch.given]


@pytest.mark.parametrize("column", [["[0.1, 0.2]"], [b"\0" * 2048], [3]])
def test_a_column_that_holds_no_vectors_is_told_as_such(tmp_path: Path, column: list[object]) -> None:
    file = table(tmp_path / "v.parquet", {"path": ["0.png"], "vector": column})
    with pytest.raises(UnreadableSource, match="vector"):
        read_all(file)


def test_a_column_of_vectors_may_be_called_embeddings_where_it_is_named(tmp_path: Path) -> None:
    file = table(tmp_path / "v.parquet", {"path": ["0.png"], "embeddings": [np.ones(TEXT_SPACE.dim, dtype=np.float32)]})
    (given,) = read_all(file, vector_column="embeddings")
    assert given is not None


def test_what_is_wrong_with_a_table_or_an_array_is_told_as_what_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((1, TEXT_SPACE.dim), dtype=np.float32))
    (tmp_path / "latin.csv").write_bytes(b"path\n\xfc.png\n")
    with pytest.raises(UnreadableSource, match="utf-8"):
        read_all(tmp_path / "v.npy", tmp_path / "latin.csv")
    (tmp_path / "long.csv").write_text(f'path\n"{"x" * 200_000}"\n')
    with pytest.raises(UnreadableSource, match="field"):
        read_all(tmp_path / "v.npy", tmp_path / "long.csv")
    np.savez(tmp_path / "z.npz", np.ones((1, TEXT_SPACE.dim), dtype=np.float32))
    (tmp_path / "z.npz").rename(tmp_path / "z.npy")
    with pytest.raises(UnreadableSource, match="magic"):
        read_all(tmp_path / "z.npy", tmp_path / "latin.csv")


def test_paths_in_parquet_that_are_not_utf_8_are_told(tmp_path: Path) -> None:
    paths = pa.array([b"\xfc.png"], pa.binary()).view(pa.string())
    vectors = pa.array([np.ones(TEXT_SPACE.dim, dtype=np.float32)], pa.list_(pa.float32()))
    pq.write_table(pa.Table.from_arrays([paths, vectors], ["path", "vector"]), tmp_path / "v.parquet")
    with pytest.raises(UnreadableSource, match="utf-8"):
        read_all(tmp_path / "v.parquet")
    with pytest.raises(UnreadableSource, match="utf-8"):
        list(ParquetManifest(tmp_path / "v.parquet", Naming()).batches(""))
