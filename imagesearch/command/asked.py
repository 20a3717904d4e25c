"""What the user looks for, from the command line to a question."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import dataclass, fields
from pathlib import Path

from core.schemas import BBox
from imagesearch.command.examples import NamedExample, examples, named_example, short
from imagesearch.command.exits import UsageError
from imagesearch.pictures import printable
from imagesearch.question import DEFAULT_TOP_K, Question
from searchsvc.search_schema import Scope


@dataclass(frozen=True, slots=True)
class Asked:
    words: list[str]
    text: str | None
    picture: list[Path]
    region: BBox | None
    image_id: str | None
    segment: int | None
    like: list[NamedExample]
    unlike: list[NamedExample]
    negative_text: str | None
    scope: Scope | None
    no_feedback: bool
    folder: str | None
    name: str | None
    label: list[str]
    date_from: str | None
    date_to: str | None
    filter: str | None
    min_score: float | None
    collapse: bool
    diversity: float | None
    explain: bool

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("words", nargs="*", metavar="WORDS", help="what to look for; quotes are not needed")
        asked = parser.add_argument_group("what to look for")
        asked.add_argument("--text", help="the same, as an option")
        asked.add_argument(
            "--picture",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="a query picture, or up to four that count together (repeat it); `-` reads one from stdin",
        )
        asked.add_argument(
            "--region", type=_box, metavar="X,Y,W,H", help="this part of the picture, in pixels of the upright one"
        )
        asked.add_argument("--image-id", metavar="ID", help="more like this indexed image")
        asked.add_argument("--segment", type=int, metavar="N", help="of the --image-id: more like its region N")
        reference = "HIT|ID[/N]"
        asked.add_argument(
            "--like",
            type=named_example,
            action="append",
            default=[],
            metavar=reference,
            help="more like this: a hit of the last search by its number, or an image by its id, or its region N (repeat for several)",
        )
        asked.add_argument(
            "--unlike",
            type=named_example,
            action="append",
            default=[],
            metavar=reference,
            help="less like this (repeat for several)",
        )
        asked.add_argument("--not", dest="negative_text", metavar="TEXT", help="what not to look for")
        asked.add_argument("--scope", choices=["images", "segments", "both"], help="whole pictures (default), regions, or both")
        asked.add_argument("--no-feedback", action="store_true", help="as if nothing had been rated")
        _filters(parser)
        shown = parser.add_argument_group("what is made of the matches")
        shown.add_argument("--collapse", action="store_true", help="near-duplicates stand as one")
        shown.add_argument("--diversity", type=float, metavar="D", help="0 to 1: less of the same among the first")
        shown.add_argument("--explain", action="store_true", help="below each hit, what its score is made of")

    @property
    def is_empty(self) -> bool:
        return not any(getattr(self, field.name) not in (None, False, []) for field in fields(Asked))

    @property
    def names_hits(self) -> bool:
        """Whether the last search's numbers stand in it."""
        return any(isinstance(example, int) for example in (*self.like, *self.unlike))

    def question(self, *, top_k: int | None) -> Question:
        """Reads stdin where it holds the picture. Raises UsageError."""
        return Question(
            self._text(),
            picture=[sys.stdin.buffer.read() if path == Path("-") else path for path in self.picture],
            region=self.region,
            image_id=self.image_id,
            segment=self.segment,
            like=examples(self.like),
            unlike=examples(self.unlike),
            negative_text=self.negative_text,
            scope=self.scope or "images",
            filter=self._filter(),
            top_k=DEFAULT_TOP_K if top_k is None else top_k,
            min_score=self.min_score,
            collapse=self.collapse,
            diversity=self.diversity or 0,
            explain=self.explain,
            feedback=not self.no_feedback,
        )

    def in_words(self) -> str:
        text = self._text()
        parts = [f"“{text}”"] if text else []
        parts += [f"picture {printable(path.name)}" for path in self.picture]
        parts += [f"like {short(self.image_id)}"] if self.image_id else []
        parts += [f"like {short(example)}" for example in self.like]
        parts += [f"unlike {short(example)}" for example in self.unlike]
        return " and ".join(parts)

    def _text(self) -> str | None:
        if self.words and self.text is not None:
            raise UsageError("say the words once: bare, or with --text")
        text = " ".join(self.words) or self.text
        if text is None and not self.picture and self.image_id is None and not self.like:
            raise UsageError("say what to look for: words, --picture, --image-id or --like")
        return text

    def _filter(self) -> dict[str, object] | None:
        try:
            wanted = json.loads(self.filter) if self.filter else {}
        except ValueError as error:
            raise UsageError(f"--filter is not JSON: {error}") from None
        if not isinstance(wanted, dict):
            raise UsageError("--filter must be a JSON object")
        if self.folder is not None:
            wanted["folder"] = self.folder
        if self.name is not None:
            wanted["name"] = self.name
        if self.label:
            wanted["label"] = self.label
        dates = {name: date for name, date in (("from", self.date_from), ("to", self.date_to)) if date}
        if dates:
            wanted["date"] = dates
        return wanted or None


def _filters(parser: ArgumentParser) -> None:
    kept = parser.add_argument_group("what a match must be")
    kept.add_argument("--folder", help="it lies in this folder or below")
    kept.add_argument("--name", metavar="PATTERN", help="a part of its file's name, or `*` for anything: 'IMG_*.jpg'")
    kept.add_argument("--label", action="append", default=[], help="one of these labels was found in it (repeat for several)")
    kept.add_argument("--from", dest="date_from", metavar="DATE", help="taken on this day or later, e.g. 2024-06-01")
    kept.add_argument("--to", dest="date_to", metavar="DATE", help="taken on this day or earlier")
    kept.add_argument("--filter", metavar="JSON", help='the whole filter, e.g. \'{"size": {"min_width": 1000}}\'')
    kept.add_argument("--min-score", type=float, metavar="S", help="least similarity, -1 to 1")


def _box(given: str) -> BBox:
    try:
        x, y, width, height = map(float, given.split(","))
    except ValueError:
        raise ArgumentTypeError(f"not four numbers with commas between: {given}") from None
    return x, y, width, height
