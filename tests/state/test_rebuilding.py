"""Any file of the data folder, damaged in any way while nothing runs: the next start answers, and agrees with the folder again."""

from __future__ import annotations

import asyncio
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core import damage
from core.vectors.edge import EdgeStore
from tests.e2e.agreement import disagreements
from tests.ram import ram_folder
from tests.state.damage import HARMS
from tests.state.house import RealHouse, Stored, stored

PICTURES = 12
Case = tuple[str, str, str]
"""How the last process ended, which file, and what befell it."""

SEED = int(os.environ.get("DAMAGE_SEED", "20261121"))
FIRST = int(os.environ.get("DAMAGE_FROM", "0"))
"""Of the cases of the long form, which one to begin with: all of them take more than an hour."""
SOME = 4
NASTY = (
    ("closed well", "vectors/clip/edge_config.json", "deleted"),
    ("closed well", "vectors/clip/segments/*/mutable_id_tracker.mappings", "garbage_at_the_tail"),  # the engine aborts
    ("closed well", "vectors/clip/segments/*/vector_storage/deleted/status.dat", "emptied"),  # it panics
    ("closed well", "vectors/clip/segments/*/vector_storage/vectors/status.dat", "deleted"),  # it finds nothing any more
    ("closed well", "vectors/clip/segments/*/payload_storage/page_0.dat", "emptied"),  # it loads, and fails at the first payload
    ("killed", "vectors/clip/wal/open-1", "emptied"),
    ("killed", "ledger.sqlite3", "zeroed_header"),
    ("killed", "ledger.sqlite3-wal", "deleted"),
)


@pytest.fixture
def ram() -> Iterator[Path]:
    with ram_folder() as folder:
        yield folder


class Templates:
    """One house as a clean end left it, one as a kill did, and what both hold."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.houses: dict[str, RealHouse] = {}
        self.truth: Stored = {}

    async def made(self) -> None:
        house = RealHouse(self.folder / "closed well")
        house.fill(PICTURES)
        async with house.serving() as (watcher, vectors):
            await house.indexed(watcher, vectors)
            self.truth = await stored(vectors)
            self.houses["killed"] = house.copy(self.folder / "killed")  # nothing is written now: so would `kill -9` leave it
        self.houses["closed well"] = house


@pytest.fixture(scope="module")
def templates() -> Iterator[Templates]:
    with ram_folder() as folder:
        made = Templates(folder)
        asyncio.run(made.made())
        yield made


async def mended(templates: Templates, case: Case, folder: Path, rng: random.Random) -> tuple[int, list[str]]:
    """Damage one file, start, and check that all is as it was. Returns the model's calls, and what was told of repairs."""
    state, path, harm = case
    house = templates.houses[state].copy(folder)
    (harmed, *_) = sorted(house.state.glob(path))
    HARMS[harm](harmed, rng)
    with capture_logs() as logs:
        async with house.serving() as (watcher, vectors):
            await house.indexed(watcher, vectors)
            assert await stored(vectors) == templates.truth, f"{state}: {path} {harm}"
            told = [repair.detail for repair in (await watcher.catalog.status()).watcher.repairs]
    assert await asyncio.to_thread(disagreements, house.images, house.state) == []
    assert [line["detail"] for line in logs if line["event"] == "state_repaired"] == told
    assert len(told) <= 1
    return sum(house.embedder.analysed.values()), told


@pytest.mark.parametrize("case", NASTY, ids=lambda case: f"{case[1]} {case[2]}")
async def test_what_crashes_or_silences_the_engine_is_mended(templates: Templates, case: Case, ram: Path) -> None:
    _, told = await mended(templates, case, ram / "house", random.Random(f"{SEED} {case}"))
    assert len(told) == 1 or case[1] == "ledger.sqlite3-wal"


def _every_case(templates: Templates) -> list[Case]:
    """Of what holds something (locks do not), and of two collections that are alike of one."""
    cases = []
    for state, house in templates.houses.items():
        paths = [
            path for path in house.state.rglob("*") if path.is_file() and path.suffix != ".lock" and "resnet" not in path.parts
        ]
        cases += [(state, str(path.relative_to(house.state)), harm) for path in sorted(paths) for harm in HARMS]
    return cases


async def test_some_files_of_all_damaged_in_some_way(templates: Templates, ram: Path) -> None:
    print(f"DAMAGE_SEED={SEED}")
    rng = random.Random(SEED)
    for number, case in enumerate(rng.sample(_every_case(templates), SOME)):
        await mended(templates, case, ram / str(number), rng)


@pytest.mark.long
@pytest.mark.timeout(10_800)
async def test_every_file_damaged_in_every_way(templates: Templates, ram: Path) -> None:
    print(f"DAMAGE_SEED={SEED}")
    failed = []
    cases = _every_case(templates)[FIRST:]
    for number, case in enumerate(cases):
        try:
            await mended(templates, case, ram / str(number), random.Random(f"{SEED} {case}"))
        except (AssertionError, TimeoutError) as error:
            failed.append(f"{case}: {error!r}"[:400])
        shutil.rmtree(ram / str(number))
    assert failed == [], f"{len(failed)} of {len(cases)}"


async def test_a_lost_ledger_costs_no_call_of_the_models(templates: Templates, ram: Path) -> None:
    calls, told = await mended(
        templates, ("closed well", "ledger.sqlite3", "garbage_at_the_head"), ram / "house", random.Random(SEED)
    )
    assert calls == 0
    assert "made anew from the folder" in told[0]


async def test_only_what_was_lost_of_the_vectors_is_analysed_again(templates: Templates, ram: Path) -> None:
    """Without a readable journal all that was flushed is taken over: that is everything, after a clean end."""
    case = ("closed well", "vectors/clip/wal/open-1", "garbage_at_the_head")
    calls, told = await mended(templates, case, ram / "house", random.Random(SEED))
    assert calls == 0
    assert re.search(r"clip: .*; \d\d of its points were taken over", told[0])


async def test_after_a_clean_end_nothing_is_read_through(templates: Templates, ram: Path) -> None:
    house = templates.houses["closed well"].copy(ram / "house")
    with capture_logs() as logs:
        async with house.serving() as (watcher, vectors):
            await house.indexed(watcher, vectors)
    assert not [line for line in logs if line["event"] in {"vectors_checked", "state_repaired"}]
    assert damage.repairs(house.state, house.state / "vectors") == ()


async def test_a_repair_that_is_killed_midway_is_gone_through_again(
    templates: Templates, ram: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = templates.houses["closed well"].copy(ram / "house")
    HARMS["garbage_at_the_head"](house.state / "vectors" / "clip" / "wal" / "open-1", random.Random(SEED))

    class Killed(BaseException):
        pass

    def dies(*_: object) -> None:
        raise Killed

    for at in ("rescued", "conclude"):
        with monkeypatch.context() as patch:
            patch.setattr(f"core.vectors.edge_repair.{at}", dies)
            with pytest.raises(Killed):
                async with EdgeStore(house.state / "vectors"):
                    pytest.fail("it was not damaged")
    async with house.serving() as (watcher, vectors):
        await house.indexed(watcher, vectors)
        assert await stored(vectors) == templates.truth
    assert len(damage.repairs(house.state / "vectors")) == 1
    assert sum(house.embedder.analysed.values()) == 0
