"""Pictures on disk with what is known of them: a folder per label, or a file of captions.

A labelled folder is `PICTURES/<label>/...`, or has the splits above the labels: `PICTURES/train/<label>/...`, `validation` (or `val`,
`dev`), `test`, `query`, `gallery`. What is not split by folders is split by a seed.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

from core.decode import IMAGE_SUFFIXES, DecodeLimits, Pixels, decode
from core.errors import ImageRejected

Split = Literal["train", "validation", "test", "query", "gallery"]
_SPLIT_FOLDERS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "query": "query",
    "gallery": "gallery",
}
_REST = "beyond the header"
_NUMBERED = re.compile(r"#\d+$")


class UnusablePictures(Exception):
    """The folder or the captions file does not hold what the command needs; `str` says what."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Pictures with one label each: `labels[i]` is an index into `names`."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, rows: Iterable[int]) -> Labelled:
        """Those rows, with the same names."""
        kept = list(rows)
        return Labelled(tuple(self.paths[row] for row in kept), tuple(self.labels[row] for row in kept), self.names)

    def rows_by_label(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for row, label in enumerate(self.labels):
            found.setdefault(label, []).append(row)
        return found


@dataclass(frozen=True, slots=True)
class Captioned:
    """Pictures with one caption or more each."""

    paths: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.paths)

    def of(self, rows: Iterable[int]) -> Captioned:
        kept = list(rows)
        return Captioned(tuple(self.paths[row] for row in kept), tuple(self.captions[row] for row in kept))


def labelled(folder: Path) -> dict[Split, Labelled] | Labelled:
    """What lies in the folder: its splits where it has them, else everything. Raises UnusablePictures."""
    if not folder.is_dir():
        raise UnusablePictures(f"{folder} is no folder")
    splits = {_SPLIT_FOLDERS[place.name.lower()]: place for place in _folders(folder) if place.name.lower() in _SPLIT_FOLDERS}
    if not splits:
        return _labelled(folder, [place.name for place in _folders(folder)])
    names = sorted({place.name for split in splits.values() for place in _folders(split)})
    return {split: _labelled(place, names) for split, place in splits.items()}


def one_set(folder: Path, split: Split | None = None) -> Labelled:
    """One set of labelled pictures: of that split where the folder has splits. Raises UnusablePictures."""
    found = labelled(folder)
    if isinstance(found, Labelled):
        return found
    if split is None or split not in found:
        raise UnusablePictures(f"{folder} has the splits {', '.join(sorted(found))}: name the folder of one of them")
    return found[split]


def split_pictures(found: Labelled, shares: tuple[float, float], seed: int) -> tuple[Labelled, Labelled, Labelled]:
    """Train, validation and test, each with its share of every label's pictures, drawn by seed; `shares` are those of the last two."""
    train, validation, test = list[int](), list[int](), list[int]()
    for label, rows in sorted(found.rows_by_label().items()):
        drawn = _shuffled(rows, f"{seed} {found.names[label]}")
        first, second = round(len(rows) * shares[0]), round(len(rows) * shares[1])
        validation += drawn[:first]
        test += drawn[first : first + second]
        train += drawn[first + second :]
    return found.of(sorted(train)), found.of(sorted(validation)), found.of(sorted(test))


def split_labels(found: Labelled, shares: tuple[float, float], seed: int) -> tuple[Labelled, Labelled, Labelled]:
    """As `split_pictures`, but no label is in two of them: what is measured are things that were never learned."""
    present = sorted(found.rows_by_label())
    drawn = _shuffled(present, f"{seed} labels")
    first, second = round(len(present) * shares[0]), round(len(present) * shares[1])
    parts = (drawn[first + second :], drawn[:first], drawn[first : first + second])
    train, validation, test = (
        found.of(row for row, label in enumerate(found.labels) if label in part) for part in map(set, parts)
    )
    return train, validation, test


def query_and_gallery(found: Labelled, seed: int) -> tuple[Labelled, Labelled]:
    """Half of each label's pictures ask, the other half is searched; a label with a single picture is left out."""
    query, gallery = list[int](), list[int]()
    for label, rows in sorted(found.rows_by_label().items()):
        if len(rows) > 1:
            drawn = _shuffled(rows, f"{seed} {found.names[label]} query")
            query += drawn[: len(rows) // 2]
            gallery += drawn[len(rows) // 2 :]
    if not query:
        raise UnusablePictures("no label has two pictures: nothing can be asked for")
    return found.of(sorted(query)), found.of(sorted(gallery))


def captioned(folder: Path, captions: Path) -> dict[Split, Captioned] | Captioned:
    """The captions file's pictures below `folder`, by split where the file names splits; pictures that are not there are left out.

    The file is COCO's captions (`.json`), JSON lines with `file` and `caption` or `captions` (`.jsonl`), a table with a header of the
    same names (`.csv`, `.tsv`), or lines of `file`, tab, caption as Flickr8k's (`.txt`). JSON lines and tables may have `split`.
    Raises UnusablePictures.
    """
    found: dict[str, list[str]] = {}
    splits: dict[str, Split] = {}
    try:
        for file, caption, split in _rows(captions):
            found.setdefault(file, []).append(caption)
            if split:
                splits[file] = _SPLIT_FOLDERS[split.lower()]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise UnusablePictures(f"{captions} cannot be read as captions ({type(error).__name__}: {error})") from error
    here = {file: folder / file for file in found if (folder / file).is_file()}
    if not here:
        raise UnusablePictures(f"none of the {len(found)} pictures that {captions} names lies in {folder}")
    if not splits:
        return _captioned(here, found, here)
    return {
        split: _captioned(here, found, [file for file in here if splits.get(file) == split]) for split in set(splits.values())
    }


def split_captioned(found: Captioned, share: float, seed: int) -> tuple[Captioned, Captioned]:
    """Train and validation, drawn by seed."""
    drawn = _shuffled(range(len(found)), f"{seed} captions")
    held_out = max(1, round(len(found) * share))
    return found.of(sorted(drawn[held_out:])), found.of(sorted(drawn[:held_out]))


def read(path: Path, *, min_side: int | None = None) -> Pixels:
    """An upright RGB picture, uint8 (h, w, 3), as ingestion reads it; `min_side` as of `decode`. Raises UnusablePictures."""
    try:
        return decode(path.read_bytes(), DecodeLimits(), min_side=min_side).pixels
    except (OSError, ImageRejected) as error:
        raise UnusablePictures(f"{path} cannot be read as a picture: {error}") from error


def readable(paths: Sequence[Path]) -> list[bool]:
    """Whether each file opens as a picture: looked at once, before hours of training meet it."""
    return [_opens(path) for path in paths]


def _opens(path: Path) -> bool:
    try:
        decode(path.read_bytes(), DecodeLimits(), min_side=32)
    except (OSError, ImageRejected):
        return False
    return True


def _folders(folder: Path) -> list[Path]:
    return sorted(place for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))


def _labelled(folder: Path, names: Sequence[str]) -> Labelled:
    found = [(path, label) for label, name in enumerate(names) for path in _pictures(folder / name)]
    if not found:
        raise UnusablePictures(f"{folder} has no folders with pictures: it wants one folder per label")
    return Labelled(tuple(path for path, _ in found), tuple(label for _, label in found), tuple(names))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )


def _captioned(here: dict[str, Path], found: dict[str, list[str]], files: Iterable[str]) -> Captioned:
    kept = sorted(files)
    return Captioned(tuple(here[file] for file in kept), tuple(tuple(found[file]) for file in kept))


def _rows(captions: Path) -> Iterable[tuple[str, str, str | None]]:
    """File, caption and split of each line. Raises what the parsers raise."""
    kind = captions.suffix.lower()
    text = captions.read_text(encoding="utf-8-sig")
    if kind == ".json":
        return _coco(json.loads(text))
    if kind in {".jsonl", ".ndjson"}:
        return list(chain.from_iterable(_line(json.loads(line)) for line in text.split("\n") if line.strip()))
    if kind in {".csv", ".tsv"}:
        rows = csv.DictReader(io.StringIO(text, newline=""), restkey=_REST, delimiter="," if kind == ".csv" else "\t")
        return list(chain.from_iterable(_line(row) for row in rows))
    return [_token(line) for line in text.split("\n") if line.strip()]


def _coco(content: dict[str, list[dict[str, object]]]) -> list[tuple[str, str, str | None]]:
    files = {image["id"]: str(image["file_name"]) for image in content["images"]}
    return [(files[found["image_id"]], _said(found["caption"]), None) for found in content["annotations"]]


def _line(row: dict[str, object]) -> list[tuple[str, str, str | None]]:
    captions = row["captions"] if "captions" in row else row["caption"]
    if _REST in row:  # a caption with a comma and without quotes would be cut
        raise ValueError(f"more columns than the header has: {row}")
    each = captions if isinstance(captions, list) else [captions]
    split = row.get("split")
    return [(str(row["file"]), _said(caption), str(split) if split else None) for caption in each]


def _said(caption: object) -> str:
    if caption is None:
        raise ValueError("a row without a caption")
    return str(caption).strip()


def _token(line: str) -> tuple[str, str, str | None]:
    file, caption = line.split("\t", 1)
    return _NUMBERED.sub("", file), caption.strip(), None


def _shuffled(things: Iterable[int], seed: str) -> list[int]:
    drawn = list(things)
    random.Random(seed).shuffle(drawn)  # noqa: S311 - a draw that a seed repeats
    return drawn
