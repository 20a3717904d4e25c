"""`imagesearch search`: find, show, remember for `rate`, `--like` and `--next`."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Literal

from imagesearch.client import Client
from imagesearch.command.asked import Asked
from imagesearch.command.comparison import show_comparison
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.hits import show_hits
from imagesearch.command.remembered import RememberedSearch, remember, remembered
from imagesearch.command.screen import Screen
from imagesearch.command.terminal import Graphics
from searchsvc.search_schema import SearchAnswer


@dataclass(frozen=True, slots=True)
class Search(Asked):
    model: str | None
    compare: list[str] | None
    next: bool
    top_k: int | None
    offset: int
    thumbnails: Literal["auto"] | Graphics

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        Asked.arguments(parser)
        answering = parser.add_argument_group("which models are asked").add_mutually_exclusive_group()
        answering.add_argument("--model", help="the model to ask; `imagesearch status` lists them")
        answering.add_argument("--compare", nargs=2, metavar="MODEL", help="two models, side by side")
        parser.add_argument("--next", action="store_true", help="the next page of the last search; with nothing but -k")
        parser.add_argument("-k", "--top-k", type=int, metavar="N", help="how many (default 10, at most 100)")
        parser.add_argument("--offset", type=int, default=0, metavar="N", help="how many to skip")
        parser.add_argument(
            "--thumbnails", choices=["auto", *Graphics], default="auto", help="how to draw them (default: what the terminal can)"
        )
        parser.add_argument("--no-thumbnails", dest="thumbnails", action="store_const", const=Graphics.NONE, help="draw none")

    def searched_at(self) -> str | None:
        """The address of the service that the last search was asked at, where this one goes on with it."""
        last = remembered() if self.next or self.names_hits else None
        return last.url if last else None

    def run(self, client: Client, screen: Screen) -> Exit:
        if self.next:
            return self._go_on(client, screen)
        if self.compare is not None:
            return self._compare(*self.compare, client=client, screen=screen)
        answer = client.ask(self.question(top_k=self.top_k), model=self.model, offset=self.offset)
        first = self.offset + 1
        _remember(RememberedSearch.of(answer, url=client.url, asked=self.in_words(), first=first), answer, screen)
        return self._shown(answer, client, screen, first=first)

    def _go_on(self, client: Client, screen: Screen) -> Exit:
        if not self.is_empty or self.model or self.compare or self.offset:
            raise UsageError("--next goes on with the last search as it was asked: say nothing but -k beside it")
        last = remembered()
        if last is None:
            raise UsageError("there is no search to go on with yet: imagesearch search WORDS")
        answer = client.more(last.cursor, top_k=self.top_k) if last.cursor else None
        if answer is None:
            screen.say(f"nothing follows on {last.asked}", "dim")
            return Exit.NOTHING
        _remember(last.gone_on(answer), answer, screen)
        return self._shown(answer, client, screen, first=last.next_number)

    def _compare(self, one: str, other: str, *, client: Client, screen: Screen) -> Exit:
        if self.offset:
            raise UsageError("a comparison begins with the first hit: leave --offset out")
        if self.explain and not screen.as_json:
            raise UsageError("--explain goes with --compare as --json alone")
        compared = client.compare((one, other), self.question(top_k=self.top_k))
        show_comparison(compared, screen)
        return Exit.DONE if compared.images else Exit.NOTHING

    def _shown(self, answer: SearchAnswer, client: Client, screen: Screen, *, first: int) -> Exit:
        show_hits(answer, client, screen, first=first, thumbnails=self.thumbnails)
        return Exit.DONE if answer.matches else Exit.NOTHING


def _remember(search: RememberedSearch, answer: SearchAnswer, screen: Screen) -> None:
    """A search that found nothing is not remembered over one that did."""
    if not answer.matches:
        return
    try:
        remember(search)
    except OSError as error:
        screen.say(f"this search cannot be remembered for `imagesearch rate`: {error.strerror}", "yellow")
