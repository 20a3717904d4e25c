"""Embeddings taken out of the real search service over fakes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import structlog

from imagesearch.__main__ import main
from imagesearch.client import Client
from tests.fakes import TEXT_SPACE, picture
from tests.unit.searchsvc.conftest import MakeWorld, World


@pytest.fixture(autouse=True)
def quiet_service() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


async def export(address: str, folder: Path, *more: str) -> int:
    return await asyncio.to_thread(main, ["embeddings", "export", str(folder), "--url", address, *more])


async def test_every_vector_comes_out_once_with_what_it_is_of(world: World, address: str, tmp_path: Path) -> None:
    ids = {await world.add(picture("red", mark=n), f"d/{n}.png") for n in range(30)}
    assert await export(address, tmp_path / "out", "--segments") == 0
    table = pq.read_table(tmp_path / "out").to_pylist()
    stored = world.vectors.stored[TEXT_SPACE.collection]
    assert len(table) == len(stored) == 60
    assert {row["image_id"] for row in table} == ids
    assert {row["segment"] for row in table} == {None, 0}
    assert {(row["model"], row["collection"], row["fingerprint"]) for row in table} == {("CLIP", TEXT_SPACE.collection, "fake-1")}
    told = sorted(tuple(np.float32(row["vector"])) for row in table)
    assert told == sorted(tuple(point.vector) for point in stored.values())


async def test_an_export_goes_on_behind_its_last_part_and_not_with_other_models(
    world: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch.command.embeddings._PAGE", 4)
    for n in range(22):
        await world.add(picture("red", mark=n), f"{n}.png")
    out = tmp_path / "out"
    asked: list[str | None] = []
    real = Client.embeddings

    def failing(client: Client, model: str | None, *, cursor: str | None, limit: int, segments: bool) -> object:
        asked.append(cursor)
        if len(asked) == 6:
            raise ConnectionAbortedError(103, "it dies here")
        return real(client, model, cursor=cursor, limit=limit, segments=segments)

    monkeypatch.setattr(Client, "embeddings", failing)
    assert await export(address, out, "--part-pages", "2") == 2
    assert len(list(out.glob("part-*"))) == 2
    assert await export(address, out, "--part-pages", "2") == 0
    assert len(pq.read_table(out)) == 22 == len({row["image_id"] for row in pq.read_table(out, columns=["image_id"]).to_pylist()})
    assert asked[6] == asked[4], "what was not whole is asked for again, and nothing else"
    assert await export(address, out) == 0
    assert len(pq.read_table(out)) == 22
    (out / "part-00002.parquet").unlink()
    renamed = tuple(space.model_copy(update={"collection": f"{space.collection}-new"}) for space in world.embedder.models.spaces)
    world.embedder.models = world.embedder.models.model_copy(update={"spaces": renamed, "fingerprint": "fake-2"})
    await asyncio.sleep(1.1)  # as long as the service takes its models for what they were
    assert await export(address, out) == 4


async def test_embeddings_are_asked_for_with_a_key_and_by_a_cursor_that_was_given(make_world: MakeWorld) -> None:
    world = await make_world(api_keys=["a key of at least 24 characters"])
    key = {"Authorization": "Bearer a key of at least 24 characters"}
    assert (await world.client.get("/api/v1/embeddings")).status == 401
    for wrong in ("cursor=1", "limit=0", "limit=1001", "segments=perhaps", "model=nobody"):
        assert (await world.client.get(f"/api/v1/embeddings?{wrong}", headers=key)).status == 422
    answer = await (await world.client.get("/api/v1/embeddings?model=resnet", headers=key)).json()
    assert (answer["space"]["model_name"], answer["embeddings"], answer["cursor"]) == ("ResNet", [], None)


async def test_parts_that_are_taken_away_meanwhile_cost_no_other_part(
    world: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imagesearch.command.embeddings._PAGE", 4)
    ids = {await world.add(picture("red", mark=n), f"{n}.png") for n in range(22)}
    real, asked = Client.embeddings, 0

    def failing(client: Client, model: str | None, *, cursor: str | None, limit: int, segments: bool) -> object:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise ConnectionAbortedError(103, "it dies here")
        return real(client, model, cursor=cursor, limit=limit, segments=segments)

    monkeypatch.setattr(Client, "embeddings", failing)
    out, away = tmp_path / "out", tmp_path / "away"
    assert await export(address, out, "--part-pages", "1") == 2
    away.mkdir()
    (out / "part-00000.parquet").rename(away / "part-00000.parquet")
    assert await export(address, out, "--part-pages", "1") == 0
    told = [row["image_id"] for folder in (away, out) for row in pq.read_table(folder, columns=["image_id"]).to_pylist()]
    assert (len(told), set(told)) == (22, ids)


@pytest.mark.parametrize("harm", ["foreign", "cut"])
async def test_a_last_part_that_is_none_of_ours_is_named(
    world: World, address: str, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.add(picture("red"), "a.png")
    out = tmp_path / "out"
    assert await export(address, out) == 0
    last = out / "part-00000.parquet"
    if harm == "foreign":
        pq.write_table(pa.table({"x": [1]}), last)
    else:
        last.write_bytes(last.read_bytes()[:100])
    capsys.readouterr()
    assert await export(address, out) == 2
    assert str(last) in capsys.readouterr().err


async def test_an_export_of_everything_does_not_take_parts_of_vectors_alone_for_its_own(
    world: World, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.add(picture("red"), "a.png")
    assert await export(address, tmp_path / "out") == 0
    assert await export(address, tmp_path / "out", "--complete") == 2
    assert "another export" in capsys.readouterr().err


async def test_of_two_exports_into_one_folder_at_once_the_second_is_refused(
    world: World, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    await world.add(picture("red"), "a.png")
    real, ended = Client.embeddings, []

    def with_another(client: Client, model: str | None, *, cursor: str | None, limit: int, segments: bool) -> object:
        monkeypatch.setattr(Client, "embeddings", real)
        ended.append(main(["embeddings", "export", str(tmp_path / "out"), "--url", address]))
        return real(client, model, cursor=cursor, limit=limit, segments=segments)

    monkeypatch.setattr(Client, "embeddings", with_another)
    assert await export(address, tmp_path / "out") == 0
    assert ended == [2]
    assert "another export" in capsys.readouterr().err
    assert len(pq.read_table(tmp_path / "out")) == 1
