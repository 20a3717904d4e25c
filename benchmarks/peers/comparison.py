"""Rows of the table: ingestion over each peer's loop, and text search over rclip's."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
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
class Ours:
    """Pictures a second: as it is installed, in float32 as peers are, and of the loop that one would write first."""

    ingested: float
    in_float32: float
    naive: float


def ingestion_rows(folder: Path, case: ingestion.Case, *, models_dir: Path, count: int, environments: Path) -> list[Row]:
    """Ours, peers one after the other, ours again: what the machine does beside it falls on each alike."""
    first, second = _two_folders(folder, count)
    formats = models.write(models_dir / CLIP_ID, folder / "peers")
    before = _ours(folder / "before", first, models_dir, case.environment)
    naive = ingestion.loop_rate(first[:_NAIVE_PHOTOS], case.naive)
    seen = {peer: _fastest(peer, first[0].parent, formats, environments) for peer in PEERS}
    exact = _ours(folder / "float32", second, models_dir, {**case.environment, "MODEL_PRECISION": "fp32"})
    after = _ours(folder / "after", second, models_dir, case.environment)
    ours = Ours(2 / (1 / before + 1 / after), exact, naive)
    return [ingestion_row(case.name, peer, found, ours) for peer, found in seen.items()]


def ingestion_row(case: str, peer: Peer, seen: Mapping[int, float] | PeerFailed, ours: Ours) -> Row:
    """`seen`: pictures a second by number of workers."""
    name = f"ingestion, {case}: over {peer.title}"
    if isinstance(seen, PeerFailed):
        return Row(name, None, _GOAL, "higher", note=str(seen))
    workers, per_s = max(seen.items(), key=lambda one: one[1])
    detail = {
        "ingested_per_s": ours.ingested,
        "ingested_in_float32_per_s": ours.in_float32,
        "peer_per_s": per_s,
        "naive_per_s": ours.naive,
    }
    tried = f"; fastest of {_listed(seen)} workers: {workers}" if len(seen) > 1 else ""
    return Row(name, ours.ingested / per_s, _GOAL, "higher", detail=detail, note=f"{peer.run}{tried}. It {peer.leaves_out}")


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


def _two_folders(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """The pictures of ingestion's own row, half and half."""
    first, second = folder / "pictures", folder / "others"
    photos.write(first, 2 * count)
    second.mkdir()
    for file in sorted(first.iterdir())[count:]:
        shutil.move(file, second)
    return sorted(first.iterdir()), sorted(second.iterdir())


def _ours(folder: Path, files: Sequence[Path], models_dir: Path, environment: Mapping[str, str]) -> float:
    with Product(folder, models_dir=models_dir, environment=environment) as product:
        product.start_and_wait(timeout_s=600)
        per_s = ingestion.ingestion_rate(product, list(files), before=0)
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
