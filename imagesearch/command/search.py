"""`imagesearch search`: find, show, remember for `rate`."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.remembered import RememberedSearch, remember
from imagesearch.command.screen import Screen, shown
from imagesearch.command.terminal import Graphics, graphics_of_terminal
from imagesearch.command.thumbnails import draw
from imagesearch.errors import ImageSearchError
from searchsvc.search_schema import MatchView, Scope, SearchAnswer

_THUMBNAIL_PIXELS: Literal[256] = 256


@dataclass(frozen=True, slots=True)
class Search:
    words: list[str]
    text: str | None
    picture: Path | None
    image_id: str | None
    negative_text: str | None
    scope: Scope
    folder: str | None
    label: list[str] | None
    date_from: str | None
    date_to: str | None
    filter: str | None
    top_k: int
    offset: int
    min_score: float | None
    model: str | None
    no_feedback: bool
    name: str | None
    thumbnails: Literal["auto"] | Graphics

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("words", nargs="*", metavar="WORDS", help="what to look for; quotes are not needed")
        asked = parser.add_argument_group("what to look for")
        asked.add_argument("--text", help="the same, as an option")
        asked.add_argument("--picture", type=Path, metavar="FILE", help="a query picture; `-` reads it from stdin")
        asked.add_argument("--image-id", metavar="ID", help="more like this indexed image")
        asked.add_argument("--not", dest="negative_text", metavar="TEXT", help="what not to look for")
        asked.add_argument(
            "--scope", choices=["images", "segments", "both"], default="images", help="whole pictures, regions, or both"
        )
        asked.add_argument("--model", help="the model to ask; `imagesearch status` lists them")
        asked.add_argument("--no-feedback", action="store_true", help="as if nothing had been rated")
        kept = parser.add_argument_group("what a match must be")
        kept.add_argument("--folder", help="it lies in this folder or below")
        kept.add_argument("--name", metavar="PATTERN", help="a part of its file's name, or `*` for anything: 'IMG_*.jpg'")
        kept.add_argument("--label", action="append", help="one of these labels was found in it (repeat for several)")
        kept.add_argument("--from", dest="date_from", metavar="DATE", help="taken on this day or later, e.g. 2024-06-01")
        kept.add_argument("--to", dest="date_to", metavar="DATE", help="taken on this day or earlier")
        kept.add_argument("--filter", metavar="JSON", help='the whole filter, e.g. \'{"size": {"min_width": 1000}}\'')
        kept.add_argument("--min-score", type=float, metavar="S", help="least similarity, -1 to 1")
        parser.add_argument("-k", "--top-k", type=int, default=10, metavar="N", help="how many (default 10, at most 100)")
        parser.add_argument("--offset", type=int, default=0, metavar="N", help="how many to skip")
        parser.add_argument(
            "--thumbnails", choices=["auto", *Graphics], default="auto", help="how to draw them (default: what the terminal can)"
        )
        parser.add_argument("--no-thumbnails", dest="thumbnails", action="store_const", const=Graphics.NONE, help="draw none")

    def run(self, client: Client, screen: Screen) -> Exit:
        answer = client.search(
            self._text(),
            picture=self._picture(),
            image_id=self.image_id,
            negative_text=self.negative_text,
            scope=self.scope,
            filter=self._filter(),
            top_k=self.top_k,
            offset=self.offset,
            min_score=self.min_score,
            model=self.model,
            feedback=not self.no_feedback,
        )
        self._remember(answer, client.url, screen)
        self._show(answer, client, screen)
        return Exit.DONE if answer.matches else Exit.NOTHING

    def _text(self) -> str | None:
        if self.words and self.text is not None:
            raise UsageError("say the words once: bare, or with --text")
        text = " ".join(self.words) or self.text
        if text is None and self.picture is None and self.image_id is None:
            raise UsageError("say what to look for: words, --picture or --image-id")
        return text

    def _picture(self) -> Path | bytes | None:
        if self.picture == Path("-"):
            return sys.stdin.buffer.read()
        return self.picture

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

    def _asked(self) -> str:
        parts = [f"“{text}”" for text in (self._text(),) if text]
        parts += [f"picture {self.picture.name}"] if self.picture else []
        parts += [f"like {self.image_id[:8]}"] if self.image_id else []
        return " and ".join(parts)

    def _graphics(self) -> Graphics:
        return graphics_of_terminal() if self.thumbnails == "auto" else Graphics(self.thumbnails)

    def _remember(self, answer: SearchAnswer, url: str, screen: Screen) -> None:
        if not answer.matches:
            return
        try:
            remember(RememberedSearch.of(answer, url=url, asked=self._asked(), first=self.offset + 1))
        except OSError as error:
            screen.say(f"this search cannot be remembered for `imagesearch rate`: {error.strerror}", "yellow")

    def _show(self, answer: SearchAnswer, client: Client, screen: Screen) -> None:
        if screen.as_json:
            screen.document(answer)
            return
        if answer.notice:
            screen.say(answer.notice, "yellow")
        numbered = list(enumerate(answer.matches, self.offset + 1))
        if not screen.for_people:
            for number, match in numbered:
                screen.line(
                    number, f"{match.score:.4f}", match.path, match.segment.label if match.segment else "", match.image_id
                )
            return
        graphics = self._graphics() if numbered else Graphics.NONE
        if graphics is Graphics.NONE:
            screen.table(
                [(str(number), f"{match.score:.3f}", match.path, *_about(match)) for number, match in numbered], right=(0, 1)
            )
        else:
            for number, match in numbered:
                _draw_hit(number, match, client, screen, graphics)
        _say_summary(answer, screen, first=self.offset + 1)


def _about(match: MatchView) -> tuple[str, str]:
    """Size, and the region where one matched."""
    region = match.segment
    return f"{match.width} × {match.height}", f"region: {region.label} {region.score:.0%} sure" if region else ""


def _draw_hit(number: int, match: MatchView, client: Client, screen: Screen, graphics: Graphics) -> None:
    lines = [f"{number}  {match.score:.3f}", match.path, *_about(match)]
    lines = [shown(line) for line in lines]
    try:
        thumbnail = client.thumbnail(match.image_id, size=_THUMBNAIL_PIXELS)
    except ImageSearchError:  # its file has just gone: the words still stand
        screen.raw("".join(f"{line}\n" for line in [*lines, ""]))
    else:
        screen.raw(draw(thumbnail, lines, match, graphics, width=screen.out.width))


def _say_summary(answer: SearchAnswer, screen: Screen, *, first: int) -> None:
    if not answer.matches:
        screen.say("nothing found", "dim")
        return
    found = len(answer.matches)
    screen.say(f"{found} by {answer.model_name} in {answer.took_ms:.0f} ms; rate one: imagesearch rate {first} 9", "dim")
