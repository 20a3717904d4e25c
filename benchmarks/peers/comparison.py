"""Rows of the table: ingestion over each peer's loop, and text search over rclip's."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ingestion, photos
from benchmarks.peers import models
from benchmarks.peers.catalog import PEERS, RCLIP, Peer
from benchmarks.peers.environment import PeerFailed, python_of
from benchmarks.peers.running import seen_by
from benchmarks.rows import Row
from tests.checkpoints import CLIP_ID
from tests.e2e.product import Product

_NAIVE_PHOTOS = 40
_GOAL = 1.0
"""No slower than any of them, with all that they leave out."""


@dataclass(frozen=True, slots=True)
class Beside:
    """Pictures a second: ours in float32, as peers are, and of the loop that one would write first."""

    in_float32: float
    naive: float


def ingestion_rows(folder: Path, case: ingestion.Case, *, models_dir: Path, count: int, environments: Path) -> list[Row]:
    """Ours before and after each peer, so that what the machine does beside it falls on either alike."""
    pictures = folder / "pictures"
    photos.write(pictures, count)
    files = sorted(pictures.iterdir())
    formats = models.write(models_dir / CLIP_ID, folder / "peers")
    in_float32 = _ours(folder, files, models_dir, {**case.environment, "MODEL_PRECISION": "fp32"})
    beside = Beside(in_float32, ingestion.loop_rate(files[:_NAIVE_PHOTOS], case.naive))
    ours, rows = [_ours(folder, files, models_dir, case.environment)], list[Row]()
    for peer in PEERS:
        seen = _fastest(peer, pictures, formats, environments)
        ours.append(_ours(folder, files, models_dir, case.environment))
        rows.append(ingestion_row(case.name, peer, seen, statistics.harmonic_mean(ours[-2:]), beside))
    return rows


def ingestion_row(case: str, peer: Peer, seen: Mapping[int, float] | PeerFailed, ingested: float, beside: Beside) -> Row:
    """`seen`: pictures a second by number of workers; `ingested`: ours, around it."""
    name = f"ingestion, {case}: over {peer.title}"
    if isinstance(seen, PeerFailed):
        return Row(name, None, _GOAL, "higher", note=str(seen))
    workers, per_s = max(seen.items(), key=lambda one: one[1])
    detail = {
        "ingested_per_s": ingested,
        "ingested_in_float32_per_s": beside.in_float32,
        "peer_per_s": per_s,
        "naive_per_s": beside.naive,
    }
    tried = f"; fastest of {_listed(seen)} workers: {workers}" if len(seen) > 1 else ""
    return Row(name, ingested / per_s, _GOAL, "higher", detail=detail, note=f"{peer.run}{tried}. It {peer.leaves_out}")


def search_row(folder: Path, *, models_dir: Path, count: int, ours_p50_ms: float, environments: Path) -> Row:
    """How many times longer `rclip` takes, once its model is loaded, than a search over HTTP does here."""
    name = f"text search over {count:,}: {RCLIP.title} over ours"
    try:
        formats = models.write(models_dir / CLIP_ID, folder / "peers")
        seen = seen_by(RCLIP, python_of(RCLIP, environments), "search", count, models=formats)
    except PeerFailed as failed:
        return Row(name, None, _GOAL, "higher", note=str(failed))
    detail = {
        "rclip_p50_ms": seen["search_ms"],
        "rclip_without_reading_p50_ms": seen["compared_ms"],
        "ours_over_HTTP_p50_ms": ours_p50_ms,
    }
    note = "`search` of a process kept open: it reads every vector from SQLite, multiplies and sorts; exact, and no filters but the folder"
    return Row(name, seen["search_ms"] / ours_p50_ms, _GOAL, "higher", detail=detail, note=note)


def _ours(folder: Path, files: list[Path], models_dir: Path, environment: Mapping[str, str]) -> float:
    """Pictures a second into an installation that knows none."""
    with (
        tempfile.TemporaryDirectory(dir=folder) as place,
        Product(Path(place), models_dir=models_dir, environment=environment) as product,
    ):
        product.start_and_wait(timeout_s=600)
        per_s = ingestion.ingestion_rate(product, files, before=0)
        product.interrupt(timeout_s=30)
    return per_s


def _fastest(peer: Peer, pictures: Path, formats: Path, environments: Path) -> dict[int, float] | PeerFailed:
    """By number of workers; what fails with one number fails the peer, so that nothing is told of half a comparison."""
    try:
        python = python_of(peer, environments)
        return {
            workers: seen_by(peer, python, "ingest", pictures, workers, models=formats)["per_s"]
            for workers in dict.fromkeys(peer.workers)
        }
    except PeerFailed as failed:
        return failed


def _listed(numbers: Mapping[int, float]) -> str:
    *most, last = map(str, numbers)
    return f"{', '.join(most)} and {last}"
