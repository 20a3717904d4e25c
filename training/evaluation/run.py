"""`evaluate`: load what is served, measure it on the pictures, and write the report."""

from __future__ import annotations

import sys

from model_service.parts import Parts
from training.evaluation import captions, embedding, labels, report, subjects
from training.evaluation.evaluation import Evaluation, TowerScores, short_table, versions
from training.evaluation.options import EvaluateOptions


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Writes the report, and a short table to stdout. Raises UnusablePictures, and NoModel when the profile is not to be had."""
    found = subjects.find(options)
    parts = embedding.load(options)
    captioned = captions.measure(parts, found.captioned, options) if found.captioned else None
    labelled = labels.measure(parts, found.labelled, options) if found.labelled else None
    measured = [part for part in (captioned, labelled) if part is not None]
    evaluation = Evaluation(
        profile=parts.profile,
        fingerprint=parts.fingerprint,
        notice=parts.notice,
        options=options,
        towers=labelled.towers if labelled else _unlabelled(parts),
        captioned=captioned.scores if captioned else None,
        labelled=labelled.scores if labelled else None,
        skipped=tuple(skipped for part in measured for skipped in part.skipped),
        notes=(*found.notes, *(labelled.notes if labelled else ())),
        examples=tuple(examples for part in measured for examples in part.examples),
        versions=versions(),
    )
    page = report.write(evaluation, options.report)
    sys.stdout.write(f"{short_table(evaluation)}The report is {page}\n")
    return evaluation


def _unlabelled(parts: Parts) -> tuple[TowerScores, ...]:
    return tuple(TowerScores(tower.card, tower.space.dim, tower.space.text, None, None) for tower in parts.image_towers)
