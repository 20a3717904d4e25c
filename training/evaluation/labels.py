"""What the towers make of labelled pictures: pictures of the same label, names of labels, labels learned from a few pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_service.parts import ImageTower, Parts
from training.evaluation import embedding, examples, scores
from training.evaluation.embedding import Skipped
from training.evaluation.evaluation import LabelScores, NameScores, TowerScores
from training.evaluation.examples import Examples, Shown
from training.evaluation.intervals import Rows, draws
from training.evaluation.options import SLOT, EvaluateOptions
from training.evaluation.scores import FewShot, NothingRight, Ranking, Vectors
from training.evaluation.subjects import Flags, LabelledSubject
from training.pictures import Labelled


@dataclass(frozen=True, slots=True)
class OfLabels:
    scores: LabelScores
    towers: tuple[TowerScores, ...]
    examples: tuple[Examples, ...]
    skipped: tuple[Skipped, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Readable:
    """The pictures that could be read, with each tower's vectors."""

    pictures: Labelled
    labels: Rows
    asks: Flags
    searched: Flags
    leave_one_out: bool
    vectors: tuple[Vectors, ...]


def measure(parts: Parts, subject: LabelledSubject, options: EvaluateOptions) -> OfLabels:
    """Raises UnusablePictures when no picture can be read."""
    embedded = embedding.embed_pictures(
        parts.image_towers, subject.pictures.paths, threads=options.threads, shown="labelled pictures"
    )
    rows, pictures = list(embedded.rows), subject.pictures.of(embedded.rows)
    found = _Readable(
        pictures, np.array(pictures.labels), subject.asks[rows], subject.searched[rows], subject.leave_one_out, embedded.vectors
    )
    rankings = [_ranking(found, vectors) for vectors in found.vectors]
    towers = tuple(
        _tower(found, tower, vectors, ranking, options)
        for tower, vectors, ranking in zip(parts.image_towers, found.vectors, rankings, strict=True)
    )
    return OfLabels(
        scores=LabelScores(
            pictures=len(pictures),
            queries=int(found.asks.sum()),
            gallery=int(found.searched.sum()),
            leave_one_out=found.leave_one_out,
            labels=pictures.names,
            words=subject.words,
            zero_shot=_zero_shot(parts, found, subject.words, options),
        ),
        towers=towers,
        examples=tuple(
            _examples(found, tower, ranking, options)
            for tower, ranking in zip(parts.image_towers, rankings, strict=True)
            if ranking is not None
        ),
        skipped=embedded.skipped,
        notes=tuple(_notes(towers[0], options)),
    )


def _ranking(found: _Readable, vectors: Vectors) -> Ranking | None:
    try:
        return scores.rank(
            vectors[found.asks],
            vectors[found.searched],
            found.labels[found.asks],
            found.labels[found.searched],
            leave_one_out=found.leave_one_out,
        )
    except NothingRight:
        return None


def _tower(
    found: _Readable, tower: ImageTower, vectors: Vectors, ranking: Ranking | None, options: EvaluateOptions
) -> TowerScores:
    return TowerScores(
        card=tower.card,
        dim=tower.space.dim,
        text=tower.space.text,
        image_to_image=scores.retrieval(ranking, np.arange(ranking.asked), draws(options.seed, "image to image"))
        if ranking
        else None,
        few_shot=_few_shot(found, vectors, options),
    )


def _few_shot(found: _Readable, vectors: Vectors, options: EvaluateOptions) -> FewShot | None:
    """Every tower is given the same episodes."""
    return scores.few_shot(
        vectors,
        found.labels,
        draws(options.seed, "few-shot"),
        ways=options.ways,
        shots=options.shots,
        queries=options.queries,
        episodes=options.episodes,
    )


def _zero_shot(parts: Parts, found: _Readable, words: tuple[str, ...], options: EvaluateOptions) -> tuple[NameScores, ...]:
    measured = list[NameScores]()
    for template in options.templates:
        asked = [template.replace(SLOT, name) for name in words]
        names = embedding.embed_texts(parts.text_tower, asked, shown=f"names as {template!r}")
        rng = draws(options.seed, "zero-shot")
        measured.append(NameScores(template, scores.zero_shot(found.vectors[0], names, found.labels, rng)))
    return tuple(measured)


def _examples(found: _Readable, tower: ImageTower, ranking: Ranking, options: EvaluateOptions) -> Examples:
    asking, searched = np.flatnonzero(found.asks), np.flatnonzero(found.searched)

    def shown(row: int) -> Shown:
        return Shown(found.pictures.paths[row], found.pictures.names[found.pictures.labels[row]])

    return examples.of(
        f"Image to image, {tower.card.model_name}",
        ranking,
        found.labels[asking],
        found.labels[searched],
        draws(options.seed, "label examples"),
        query=lambda row: shown(int(asking[row])),
        candidate=lambda row: shown(int(searched[row])),
        spread=found.labels[asking],
    )


def _notes(tower: TowerScores, options: EvaluateOptions) -> list[str]:
    notes = list[str]()
    if tower.image_to_image is None:
        notes.append("Image to image is not measured: no picture that asks has another of its label among those searched.")
    if tower.few_shot is None:
        wanted = f"{options.shots + options.queries} pictures (shots + queries)"
        notes.append(f"Few-shot is not measured: fewer than {options.ways} labels have {wanted}. Lower ways, shots or queries.")
    return notes
