"""What so many pictures take: formulas against figures worked out by hand, chances against textbooks."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesearch.__main__ import main
from imagesearch.sizing import chances
from imagesearch.sizing.chances import YEAR_H, Node
from imagesearch.sizing.costs import Costs, measured
from imagesearch.sizing.plan import BROKER_BASE_BYTES, GIB, Wanted, planned
from imagesearch.sizing.telling import amount, size, told
from imagesearch.sizing.vectors import kept, links_bytes

_COSTS = Costs(
    picture_bytes=400_000,
    thumbnail_bytes=10_000,
    regions=4,
    payload_image_bytes=400,
    payload_region_bytes=600,
    filters_image_bytes=800,
    filters_region_bytes=700,
    id_bytes=30,
    resident_bytes=10,
    index_cpu_s=0.001,
    ledger_sqlite_bytes=600,
    ledger_postgres_bytes=1000,
    wal_postgres_bytes=3000,
    rating_sqlite_bytes=4200,
    rating_postgres_bytes=4300,
    clip_cpu_s=0.03,
    segmenter_cpu_s=0.05,
    region_cpu_s=0.01,
    watcher_cpu_s=0.002,
    worker_cpu_s=0.015,
    database_cpu_s=0.003,
    broker_cpu_s=0.0003,
    broker_commands=5,
    broker_bytes=4000,
    task_bytes=1200,
    database_statements=8,
    database_transactions=6,
)


# --- the formulas ----------------------------------------------------------------------------------------------------


def test_a_point_takes_what_its_parts_take() -> None:
    one = kept(_COSTS, 512, "scalar", points_in_shard=2**20, regions_share=0.5)
    links = 32 * 20 / 8 * 17 / 16
    assert one.disk == 2048 + 516 + 500 + 750 + links + 30
    assert one.memory(vectors_on_disk=True) == pytest.approx((516 + links + 30) * 1.25 + 10)
    assert one.memory(vectors_on_disk=False) == (516 + 2048) * 1.5 + 10


def test_vectors_without_a_short_form_are_in_memory_wherever_they_are_kept() -> None:
    one = kept(_COSTS, 512, "off", points_in_shard=1000, regions_share=0)
    assert one.memory(vectors_on_disk=True) == one.memory(vectors_on_disk=False) == 2048 * 1.5 + 10


def test_links_name_points_in_as_many_bits_as_that_takes() -> None:
    assert links_bytes(2**30) == 1.5 * links_bytes(2**20)
    assert links_bytes(0) > 0


def test_ten_million_pictures_in_two_copies() -> None:
    plan = planned(Wanted(pictures=10_000_000), _COSTS)
    assert plan.vectors.points == 50_000_000
    assert plan.vectors.disk == pytest.approx(2 * 5e7 * plan.vectors.a_point[0].disk)
    assert plan.vectors.nodes == max(3, math.ceil(plan.vectors.memory / (64 * GIB * 0.8)))
    assert plan.vectors.shards == 2 * plan.vectors.nodes == 6
    assert plan.ledger_postgres_bytes == 1e10
    assert plan.broker_memory_bytes == BROKER_BASE_BYTES + 1.2e6
    assert plan.ingestion.model_cpu_s == pytest.approx(0.03 + 0.05 + 4 * 0.01)
    each = plan.ingestion.model_cpu_s + 0.02
    assert plan.ingestion.backfill_cores == pytest.approx(1e7 * each / (30 * 86400) / 0.7)
    assert plan.ingestion.backfill_least_days == pytest.approx(1e7 * 0.002 / 86400)


def test_without_segments_there_are_neither_their_points_nor_their_segmenter() -> None:
    plan = planned(Wanted(pictures=1000, segments=0), _COSTS)
    assert plan.vectors.points == 1000
    assert plan.vectors.fits_in_process
    assert plan.vectors.a_point[0].payload == 400
    assert plan.ingestion.model_cpu_s == 0.03


def test_a_second_space_has_points_of_its_own() -> None:
    one, two = (planned(Wanted(pictures=10**6, dims=dims), _COSTS).vectors for dims in ((512,), (512, 2048)))
    assert two.points == 2 * one.points
    assert two.points_in_shard == two.points / 2 / two.shards
    assert two.disk > 4 * one.disk / 2


def test_gpus_take_the_models_from_the_cores() -> None:
    wanted = Wanted(pictures=86_400, backfill_days=1, gpu_pictures_per_s=0.5)
    ingestion = planned(wanted, _COSTS).ingestion
    assert ingestion.backfill_gpus == pytest.approx(1 / 0.5 / 0.7)
    assert ingestion.backfill_cores == pytest.approx(0.02 / 0.7)
    assert planned(replace(wanted, gpu_pictures_per_s=None), _COSTS).ingestion.backfill_gpus == 0


@given(
    st.integers(1, 10**10),
    st.floats(0, 50, allow_subnormal=False),
    st.sampled_from(["off", "scalar", "binary"]),
    st.integers(1, 5),
    st.floats(1, 2000),
    st.floats(10, 10**5),
)
def test_what_is_planned_has_room_and_every_node_as_many_shards(  # noqa: PLR0917 - one for each wish
    pictures: int, segments: float, quantization: str, replicas: int, memory_gib: float, disk_gib: float
) -> None:
    wanted = Wanted(
        pictures=pictures,
        segments=segments,
        quantization=quantization,  # type: ignore[arg-type]
        replicas=replicas,
        node_memory_gib=memory_gib,
        node_disk_gib=disk_gib,
    )
    vectors = planned(wanted, _COSTS).vectors
    assert vectors.memory <= vectors.nodes * memory_gib * GIB * 0.8 * (1 + 1e-9)
    assert vectors.disk <= vectors.nodes * disk_gib * GIB * 0.7 * (1 + 1e-9)
    assert vectors.nodes >= replicas
    assert replicas == 1 or vectors.nodes >= 3
    assert vectors.shards % vectors.nodes == 0
    assert vectors.points_in_shard <= 30_000_000
    assert all(line.value and line.why for line in told(planned(wanted, _COSTS)))


@pytest.mark.parametrize("wrong", [{"pictures": 0}, {"segments": -1}, {"dims": ()}, {"replicas": 0}, {"gpu_pictures_per_s": 0}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        planned(replace(Wanted(pictures=1), **wrong), _COSTS)  # type: ignore[arg-type]


def test_the_costs_that_are_shipped_are_whole_and_of_their_kind() -> None:
    costs = measured()
    assert 4 * 512 < planned(Wanted(pictures=1000), costs).vectors.a_point[0].disk < 10_000
    assert 0 < costs.worker_cpu_s < 1
    assert costs.payload_region_bytes > 0


# --- how it is told --------------------------------------------------------------------------------------------------


def test_figures_are_told_in_the_unit_that_fits() -> None:
    assert [size(n) for n in (0, 12, 1.5e3, 999_999, 2.5e12)] == ["0 B", "12 B", "1.5 KB", "1 MB", "2.5 TB"]
    assert [amount(n) for n in (5, 1200, 4.5e6, 1e9)] == ["5", "1.2 thousand", "4.5 million", "1 billion"]


def test_the_command_asks_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--pictures", "100M", "--segments", "0", "--dims", "512,2048", "--url", "http://127.0.0.1:1"]) == 0
    lines = dict(line.split("\t")[:2] for line in capsys.readouterr().out.splitlines())
    assert lines["points"] == "200 million"
    assert int(lines["Qdrant nodes"].replace(",", "")) >= 3


def test_the_command_tells_programs_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--pictures", "1B", "--gpu-pictures", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["wanted"]["pictures"] == 10**9
    assert found["ingestion"]["backfill_gpus"] > 0


@pytest.mark.parametrize("wrong", [["--pictures", "many"], ["--pictures", "1M", "--dims", "x"], ["--pictures", "0"]])
def test_a_wrong_wish_is_a_wrong_command_line(wrong: list[str]) -> None:
    try:
        assert main(["sizing", *wrong]) == 2
    except SystemExit as ended:
        assert ended.code == 2  # noqa: PT017 - argparse ends by itself


@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
@pytest.mark.parametrize(
    "option",
    ["--segments", "--node-memory", "--node-disk", "--picture-bytes", "--arrivals", "--backfill-days", "--gpu-pictures"],
)
def test_no_number_is_a_wrong_command_line(option: str, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--pictures", "1k", option, number]) == 2
    assert ("above 0" if number == "-1" else "finite") in capsys.readouterr().err


@pytest.mark.parametrize(
    "wish", [["1e308"], ["1k", "--node-memory", "1e-320"], ["1k", "--dims", "1" * 400], ["1k", "--replicas", "90"]]
)
def test_what_is_beyond_all_numbers_is_a_wrong_command_line(wish: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sizing", "--pictures", *wish]) == 2
    assert "too large" in capsys.readouterr().err


# --- chances ---------------------------------------------------------------------------------------------------------


def test_two_copies_are_lost_as_the_textbook_of_mirrored_disks_has_it() -> None:
    """MTTDL of a mirror: (3 failing + restored) / (2 failing²), Patterson, Gibson and Katz 1988."""
    failing, restored = 0.1, YEAR_H / 10
    assert chances.losses_a_year(2, 0.1, 10) == pytest.approx(2 * failing**2 / (3 * failing + restored))
    assert chances.losses_a_year(1, 0.1, 10) == pytest.approx(0.1)
    assert chances.losses_a_year(3, 0.1, 10) == pytest.approx(3 * failing**3 / restored**2, rel=0.01)
    assert chances.losses_a_year(2, 0.1, 10, sets=6) == pytest.approx(6 * chances.losses_a_year(2, 0.1, 10))


def test_copies_that_fail_on_their_own_are_away_together_as_dice_have_it() -> None:
    assert chances.fewer_than(1, 3, 0.1) == pytest.approx(0.001)
    assert chances.fewer_than(2, 3, 0.1) == pytest.approx(0.001 + 3 * 0.01 * 0.9)
    assert chances.without_majority(3, 0.1) == chances.fewer_than(2, 3, 0.1)
    assert chances.fewer_than(0, 3, 0.1) == 0
    assert 0 <= chances.without_majority(100_000, 0.01) < 1e-100


def test_a_node_is_down_for_what_it_takes_to_come_back_and_to_be_filled() -> None:
    node = Node(away_a_year=0, lost_a_year=1, replaced_h=1, copied_mb_per_s=100)
    assert node.lost_h(3.6e11) == 2
    assert node.down_share(3.6e11) == pytest.approx(2 / (YEAR_H + 2))
