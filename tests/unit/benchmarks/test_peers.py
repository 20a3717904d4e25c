"""Other libraries beside ours: what is counted, and what is told when one can't be had."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import report
from benchmarks.guard import regressions
from benchmarks.peers import loop
from benchmarks.peers.catalog import PEERS, RCLIP, Peer, pinned
from benchmarks.peers.clock import Clock
from benchmarks.peers.comparison import Beside, ingestion_row
from benchmarks.peers.environment import PeerFailed, reason
from benchmarks.peers.running import seen_by
from benchmarks.rows import Row

_BESIDE = Beside(in_float32=40.0, naive=10.0)
_TRIED = Peer("rclip", "its loop", "keeps nothing", workers=(0, 2))


def _clock(*batches: tuple[float, int], expected: int = 100) -> Clock:
    times = iter([at for at, _ in batches])
    clock = Clock(expected, now=lambda: next(times))
    for _, count in batches:
        clock.done(count)
    return clock


# --- the clock -------------------------------------------------------------------------------------------------------


def test_the_clock_of_a_peer_starts_when_a_fifth_of_the_pictures_is_done() -> None:
    assert _clock((5.0, 10), (9.0, 10), (10.0, 40), (13.0, 40)).per_s() == pytest.approx(80 / 4)


def test_a_loop_that_leaves_out_a_picture_has_no_rate() -> None:
    with pytest.raises(RuntimeError, match="99 of 100"):
        _clock((1.0, 50), (2.0, 49)).per_s()
    with pytest.raises(RuntimeError, match="0 of 100"):
        _clock().per_s()


def test_a_loop_that_does_all_at_once_has_no_rate() -> None:
    with pytest.raises(RuntimeError, match="one batch"):
        _clock((1.0, 100)).per_s()


# --- whom, and in which version --------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_peer_is_pinned_and_has_a_loop(peer: Peer) -> None:
    assert pinned(peer.requirements.read_text())[peer.name] in peer.title
    assert (Path(loop.__file__).parent / "loops" / f"{peer.name.replace('-', '_')}.py").is_file()
    assert 0 in peer.workers


def test_requirements_are_pins_and_comments_alone() -> None:
    assert pinned("# why\none==1.0\n\ntwo==2.0.1  # for its file\n") == {"one": "1.0", "two": "2.0.1"}
    for loose in ("one", "one>=1.0", "one==", "==1.0"):
        with pytest.raises(ValueError, match="not pinned"):
            pinned(loose)


# --- a peer's process ------------------------------------------------------------------------------------------------


def test_what_a_peer_prints_is_kept_apart_from_what_was_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(10):
        (tmp_path / f"{n}.jpg").touch()

    def run(files: list[Path], models: Path, scratch: Path, workers: int, clock: Clock) -> None:
        print("loading the model")
        for _ in files:
            clock.done(1)

    peer = ModuleType("benchmarks.peers.loops.fake")
    peer.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, peer.__name__, peer)
    loop.main("fake", "ingest", str(tmp_path), "models", "scratch", "2")
    told, stray = capsys.readouterr()
    assert json.loads(told)["per_s"] > 0
    assert stray == "loading the model\n"


def test_a_peer_whose_loop_fails_says_why(tmp_path: Path) -> None:
    unknown = Peer("nobody", "its loop", "keeps nothing")
    with pytest.raises(PeerFailed, match=r"failed: ModuleNotFoundError: No module named 'benchmarks.peers.loops.nobody'"):
        seen_by(unknown, Path(sys.executable), "ingest", tmp_path, 0, models=tmp_path)


def test_a_reason_is_a_line_that_fits_a_table() -> None:
    pip = "WARNING: slow\nERROR: Could not find a version\nERROR: No matching distribution found for one==9\n\n[notice] a new release\n"
    assert reason(pip) == "ERROR: No matching distribution found for one==9"
    assert reason("Traceback:\n  File x\nValueError: a | b\n") == "ValueError: a / b"
    assert reason("") == "it said nothing"
    assert len(reason("x" * 999)) == 160


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_fastest_number_of_workers_counts_and_is_named() -> None:
    row = ingestion_row("CLIP", _TRIED, {0: 20.0, 2: 30.0}, 60.0, _BESIDE)
    assert row.value == pytest.approx(2.0)
    assert row.detail["peer_per_s"] == 30.0
    assert "its loop; fastest of 0 and 2 workers: 2. It keeps nothing" in row.as_markdown()
    assert row.met
    assert not ingestion_row("CLIP", _TRIED, {0: 61.0}, 60.0, _BESIDE).met


def test_a_peer_that_could_not_be_had_is_in_the_table_with_the_reason_and_counts_for_nothing(tmp_path: Path) -> None:
    row = ingestion_row("CLIP", RCLIP, PeerFailed("not installed: no network"), 60.0, _BESIDE)
    assert row.met is None
    assert row.as_markdown() == f"| ingestion, CLIP: over {RCLIP.title} | not measured | ≥ 1 x |  | not installed: no network |"
    (tmp_path / "performance.json").write_text(json.dumps({"rows": [row.as_json()]}))
    seen = ingestion_row("CLIP", RCLIP, {0: 20.0}, 60.0, _BESIDE)
    assert regressions([seen], tmp_path / "performance.json") == []
    (tmp_path / "performance.json").write_text(json.dumps({"rows": [seen.as_json()]}))
    assert regressions([row], tmp_path / "performance.json") == []


def test_a_table_with_a_peer_that_could_not_be_had_has_every_other_row_in_files_and_plot(tmp_path: Path) -> None:
    missing = ingestion_row("CLIP", RCLIP, PeerFailed("not installed: no network"), 60.0, _BESIDE)
    facts = {"processor": "p", "cores": 2, "memory_gib": 1, "system": "s", "python": "3", "packages": {}, "load_before": 0}
    report.write(tmp_path, facts, [Row("ours", 5.0, 4.0, "higher"), missing])
    kept = json.loads((tmp_path / "performance.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [row["value"] for row in kept["rows"]] == [5.0, None]
    assert "| ours | 5 x |" in (tmp_path / "performance.md").read_text()
    assert (tmp_path / "images" / "performance.png").stat().st_size > 1000
