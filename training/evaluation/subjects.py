"""What is measured: the pictures that the options name, with their captions or their labels."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.evaluation.options import EvaluateOptions
from training.pictures import Captioned, Labelled, Split, UnusablePictures, captioned, labelled, one_set

Flags = NDArray[np.bool_]

_SIDES: tuple[Split, Split] = ("query", "gallery")


@dataclass(frozen=True, slots=True)
class LabelledSubject:
    """Pictures that ask for others of their label. `words[i]` is asked for label i.

    Without `query/` and `gallery/`, every picture asks and is searched, and is left out of its own candidates.
    """

    pictures: Labelled
    asks: Flags
    searched: Flags
    words: tuple[str, ...]

    @property
    def leave_one_out(self) -> bool:
        return bool((self.asks & self.searched).any())


@dataclass(frozen=True, slots=True)
class Subjects:
    captioned: Captioned | None
    labelled: LabelledSubject | None
    notes: tuple[str, ...]


def find(options: EvaluateOptions) -> Subjects:
    """Raises UnusablePictures."""
    words = _words(options.names)
    found_labelled = _labelled(options, options.labelled, words) if options.labelled else None
    notes = list[str]()
    if found_labelled is not None and (strangers := sorted(set(words) - set(found_labelled.pictures.names))):
        notes.append(f"{options.names} has words for labels that no folder has: {', '.join(strangers)}.")
    found_captioned = _captioned(options, options.pictures, options.captions) if options.pictures and options.captions else None
    return Subjects(found_captioned, found_labelled, tuple(notes))


def _labelled(options: EvaluateOptions, folder: Path, words: dict[str, str]) -> LabelledSubject:
    """Raises UnusablePictures."""
    found = labelled(folder)
    if options.split is None and isinstance(found, dict) and {"query", "gallery"} <= found.keys():
        query, gallery = (_drawn_labelled(found[side], options, side) for side in _SIDES)
        pictures = Labelled((*query.paths, *gallery.paths), (*query.labels, *gallery.labels), query.names)
        asks = np.arange(len(pictures)) < len(query)
        searched = ~asks
    else:
        pictures = _drawn_labelled(one_set(folder, options.split), options, "labelled")
        asks = searched = np.ones(len(pictures), dtype=np.bool_)
    return LabelledSubject(pictures, asks, searched, tuple(words.get(name, name.replace("_", " ")) for name in pictures.names))


def _captioned(options: EvaluateOptions, folder: Path, file: Path) -> Captioned:
    """Raises UnusablePictures."""
    found = captioned(folder, file)
    chosen = found if isinstance(found, Captioned) else _of_split(found, options.split, file)
    return chosen.of(_draw(len(chosen), options, "captions"))


def _of_split(found: dict[Split, Captioned], split: Split | None, file: Path) -> Captioned:
    """Raises UnusablePictures."""
    if split is None or not found.get(split):
        raise UnusablePictures(f"{file} has pictures of the splits {', '.join(sorted(found))}: name one of them")
    return found[split]


def _drawn_labelled(found: Labelled, options: EvaluateOptions, purpose: str) -> Labelled:
    return found.of(_draw(len(found), options, purpose))


def _draw(count: int, options: EvaluateOptions, purpose: str) -> list[int]:
    """At most `limit` rows, in their order."""
    if options.limit is None or count <= options.limit:
        return list(range(count))
    return sorted(random.Random(f"{options.seed} {purpose}").sample(range(count), options.limit))  # noqa: S311 - repeatable


def _words(names: Path | None) -> dict[str, str]:
    """Raises UnusablePictures."""
    if names is None:
        return {}
    try:
        words = json.loads(names.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UnusablePictures(f"{names} cannot be read as names ({type(error).__name__}: {error})") from error
    if not isinstance(words, dict) or not all(isinstance(word, str) for word in words.values()):
        raise UnusablePictures(f'{names} must be a JSON object from folder name to words, as {{"tshirt": "T-shirt"}}')
    return words
