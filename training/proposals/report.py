"""From measurements to numbers with intervals, and from those to tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model_service.registry import DualEncoder
from training.proposals import intervals
from training.proposals.intervals import Interval
from training.proposals.measures import FOUND_IOU, MOSTS, SHOWN, SMALL, Covered, Measured
from training.proposals.search import WAYS, Asked, Way, found


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of things of one size; by how many regions may be shown."""

    mask_iou: dict[int, Interval]
    mask_iou_by_photo: dict[int, Interval]
    box_iou: dict[int, Interval]
    recall: dict[int, Interval]


@dataclass(frozen=True, slots=True)
class Finding:
    """How often a photo is found by one way; `gain` is over the picture alone, on the same questions."""

    photos: Interval
    categories: Interval
    gain: Interval


@dataclass(frozen=True, slots=True)
class Row:
    """All numbers of one proposer. `things_shown` is the part of the regions shown that are things."""

    name: str
    things: Coverage
    small_things: Coverage
    things_shown: Interval
    regions: float
    cpu_ms: float
    search: dict[Way, Finding]


@dataclass(frozen=True, slots=True)
class Report:
    photos: int
    things: int
    small_things: int
    questions: int
    pairs: int
    seed: int
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def summed_up(measured: Sequence[Measured], asked: Sequence[Asked], encoder: DualEncoder, seed: int) -> Report:
    shares = np.concatenate([photo.shares for photo in measured[0].photos])
    return Report(
        photos=len(measured[0].photos),
        things=len(shares),
        small_things=int((shares < SMALL).sum()),
        questions=len(asked),
        pairs=sum(len(each.photos) for each in asked),
        seed=seed,
        rows=tuple(_row(each, asked, encoder, seed) for each in measured),
    )


def markdown(report: Report) -> str:
    """Two tables: how things are covered, and what is found by words."""
    shown = "".join(f" mask IoU, {most} |" for most in MOSTS)
    lines = [
        f"| {report.things - report.small_things} things of {report.photos} photos |{shown} box IoU, {SHOWN} "
        f"| found at {FOUND_IOU}, {SHOWN} | small: mask IoU, {SHOWN} | shown that are things | regions | CPU ms |",
        "| --- |" + " --- |" * (len(MOSTS) + 6),
        *(_coverage_line(row) for row in report.rows),
        "",
        f"| {report.questions} categories asked, {report.pairs} photos to find |"
        + "".join(f" {way} | gain |" for way in WAYS[1:]),
        "| --- |" + " --- |" * (2 * len(WAYS) - 2),
        f"| the picture alone: {_shown(report.rows[0].search['picture'].photos)} |" + " |" * (2 * len(WAYS) - 2),
        *(_search_line(row) for row in report.rows),
    ]
    return "\n".join(lines) + "\n"


def _row(measured: Measured, asked: Sequence[Asked], encoder: DualEncoder, seed: int) -> Row:
    photos = measured.photos
    return Row(
        name=measured.name,
        things=_coverage(photos, [photo.shares >= SMALL for photo in photos], seed),
        small_things=_coverage(photos, [photo.shares < SMALL for photo in photos], seed),
        things_shown=intervals.over_values([photo.things_shown for photo in photos], seed),
        regions=float(np.mean([photo.regions for photo in photos])),
        cpu_ms=float(np.median([photo.cpu_s for photo in photos]) * 1000),
        search=_findings(measured, asked, encoder, seed),
    )


def _coverage(photos: Sequence[Covered], kept: Sequence[NDArray[np.bool_]], seed: int) -> Coverage:
    def by_most(values: Sequence[NDArray[np.float64]], *, by_photo: bool = False) -> dict[int, Interval]:
        mean = intervals.over_groups if by_photo else intervals.over_values
        return {
            most: mean([of[rows, column] for of, rows in zip(values, kept, strict=True)], seed)
            for column, most in enumerate(MOSTS)
        }

    masks = [photo.masks for photo in photos]
    return Coverage(
        mask_iou=by_most(masks),
        mask_iou_by_photo=by_most(masks, by_photo=True),
        box_iou=by_most([photo.boxes for photo in photos]),
        recall=by_most([(mask >= FOUND_IOU).astype(np.float64) for mask in masks]),
    )


def _findings(measured: Measured, asked: Sequence[Asked], encoder: DualEncoder, seed: int) -> dict[Way, Finding]:
    by_way = {way: [each.astype(np.float64) for each in found(asked, measured.embeddings, encoder, way)] for way in WAYS}
    return {
        way: Finding(
            photos=intervals.over_values(answers, seed),
            categories=intervals.over_groups(answers, seed),
            gain=intervals.over_values([one - alone for one, alone in zip(answers, by_way["picture"], strict=True)], seed),
        )
        for way, answers in by_way.items()
    }


def _coverage_line(row: Row) -> str:
    numbers = [
        *(row.things.mask_iou[most] for most in MOSTS),
        row.things.box_iou[SHOWN],
        row.things.recall[SHOWN],
        row.small_things.mask_iou[SHOWN],
        row.things_shown,
    ]
    return f"| {row.name} | " + " | ".join(map(_shown, numbers)) + f" | {row.regions:.1f} | {row.cpu_ms:.0f} |"


def _search_line(row: Row) -> str:
    found_by = [row.search[way] for way in WAYS[1:]]
    return f"| {row.name} | " + " | ".join(f"{_shown(each.photos)} | {_shown(each.gain, '+.3f')}" for each in found_by) + " |"


def _shown(interval: Interval, form: str = ".3f") -> str:
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"
