"""From measurements to numbers with intervals, and from those to tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from model_service.parts import TextTower
from training.proposals import intervals
from training.proposals.findings import Compared, Finding
from training.proposals.intervals import Interval
from training.proposals.measures import FOUND_IOU, MOSTS, SHOWN, SMALL, Covered, Measured
from training.proposals.search import WAYS, Questions, Way

GRID = "grid of boxes"
"""The name of the proposer that the others' search is compared with."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of things of one size; by how many regions may be shown."""

    mask_iou: dict[int, Interval]
    mask_iou_by_photo: dict[int, Interval]
    box_iou: dict[int, Interval]
    recall: dict[int, Interval]


@dataclass(frozen=True, slots=True)
class Row:
    """All numbers of one proposer. `things_shown` is the part of the first `SHOWN` regions that are things."""

    name: str
    things: Coverage
    small_things: Coverage
    things_shown: Interval
    regions: float
    cpu_ms: float
    names: dict[Way, Finding]
    captions: dict[Way, Finding]


@dataclass(frozen=True, slots=True)
class Report:
    """What was measured of, and the proposers. `photos_named` are those that the names should find, one a name and photo."""

    photos: int
    things: int
    small_things: int
    names: int
    photos_named: int
    captions: int
    names_within: int
    captions_within: int
    seed: int
    rows: tuple[Row, ...]

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def summed_up(measured: Sequence[Measured], names: Questions, captions: Questions, encoder: TextTower, seed: int) -> Report:
    """One of what was measured is `GRID`."""
    grid = next(each for each in measured if each.name == GRID).embeddings
    by_names, by_captions = (Compared(asked, grid, encoder, seed) for asked in (names, captions))
    shares = np.concatenate([photo.shares for photo in measured[0].photos])
    return Report(
        photos=len(measured[0].photos),
        things=len(shares),
        small_things=int((shares < SMALL).sum()),
        names=len(names.texts),
        photos_named=sum(map(len, names.right)),
        captions=len(captions.texts),
        names_within=names.within,
        captions_within=captions.within,
        seed=seed,
        rows=tuple(_row(each, by_names, by_captions, seed) for each in measured),
    )


def markdown(report: Report) -> str:
    """Three tables: how things are covered, and what is found by names and by captions."""
    named = f"{report.photos_named} photos by {report.names} names, within {report.names_within}"
    told = f"{report.captions} captions, within {report.captions_within}"
    lines = [
        *_coverage_table(report),
        "",
        *_search_table(named, [(row.name, row.names) for row in report.rows]),
        "",
        *_search_table(told, [(row.name, row.captions) for row in report.rows]),
    ]
    return "\n".join(lines) + "\n"


def _row(measured: Measured, by_names: Compared, by_captions: Compared, seed: int) -> Row:
    photos = measured.photos
    return Row(
        name=measured.name,
        things=_coverage(photos, [photo.shares >= SMALL for photo in photos], seed),
        small_things=_coverage(photos, [photo.shares < SMALL for photo in photos], seed),
        things_shown=intervals.over_values([photo.things_shown for photo in photos], seed),
        regions=float(np.mean([photo.regions for photo in photos])),
        cpu_ms=float(np.median([photo.cpu_s for photo in photos]) * 1000),
        names=by_names.findings(measured.embeddings),
        captions=by_captions.findings(measured.embeddings),
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


def _coverage_table(report: Report) -> list[str]:
    shown = "".join(f" mask IoU, {most} |" for most in MOSTS)
    return [
        f"| {report.things - report.small_things} things of {report.photos} photos |{shown} box IoU, {SHOWN} "
        f"| found at {FOUND_IOU}, {SHOWN} | {report.small_things} small: mask IoU, {SHOWN} | shown that are things | regions | CPU ms |",
        "| --- |" + " --- |" * (len(MOSTS) + 6),
        *(_coverage_line(row) for row in report.rows),
    ]


def _coverage_line(row: Row) -> str:
    numbers = [
        *(row.things.mask_iou[most] for most in MOSTS),
        row.things.box_iou[SHOWN],
        row.things.recall[SHOWN],
        row.small_things.mask_iou[SHOWN],
        row.things_shown,
    ]
    return f"| {row.name} | " + " | ".join(map(_shown, numbers)) + f" | {row.regions:.1f} | {row.cpu_ms:.0f} |"


def _search_table(title: str, rows: Sequence[tuple[str, dict[Way, Finding]]]) -> list[str]:
    alone = rows[0][1]["picture"].photos
    return [
        f"| {title}; picture alone: {_shown(alone)} |"
        + "".join(f" {way} | gain |" for way in WAYS[1:])
        + " better, over the grid |",
        "| --- |" + " --- |" * (2 * len(WAYS) - 1),
        *(_search_line(name, findings) for name, findings in rows),
    ]


def _search_line(name: str, findings: dict[Way, Finding]) -> str:
    numbers = [f"{_shown(findings[way].photos)} | {_shown(findings[way].gain, '+.3f')}" for way in WAYS[1:]]
    return f"| {name} | " + " | ".join([*numbers, _shown(findings["better"].gain_over_grid, "+.3f")]) + " |"


def _shown(interval: Interval, form: str = ".3f") -> str:
    return f"{interval.mean:{form}} ({interval.low:{form}} to {interval.high:{form}})"
