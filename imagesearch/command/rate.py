"""`imagesearch rate`: what the user thinks of the last search, or of one of its hits."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass

from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.remembered import remembered
from imagesearch.command.screen import Screen


@dataclass(frozen=True, slots=True)
class Rate:
    numbers: list[int]
    jwt: str | None

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "numbers",
            nargs="+",
            type=int,
            metavar="[HIT] RATING",
            help="`rate 3 9` gives hit 3 of the last search a 9; `rate 8` gives the whole search an 8; 1 (useless) to 10 (just right)",
        )
        parser.add_argument("--jwt", metavar="TOKEN", help="rate what this token is about, as `search --json` shows it")

    def searched_at(self) -> str | None:
        """The address of the service that gave the tokens: no other one takes them."""
        last = remembered() if self.jwt is None else None
        return last.url if last else None

    def run(self, client: Client, screen: Screen) -> Exit:
        rating = self.numbers[-1]
        if not 1 <= rating <= 10:
            raise UsageError(f"a rating goes from 1 to 10, not {rating}")
        about, token = self._rated()
        feedback_id = client.rate(token, rating)
        if screen.as_json:
            screen.document({"feedback_id": feedback_id, "user_feedback": rating})
        elif screen.for_people:
            screen.say(f"rated {rating}: {about}")
        else:
            screen.line(feedback_id)
        return Exit.DONE

    def _rated(self) -> tuple[str, str]:
        """In words, and as a token."""
        if self.jwt is not None:
            if len(self.numbers) != 1:
                raise UsageError("with --jwt give the rating alone")
            return "by its token", self.jwt
        last = remembered()
        if last is None:
            raise UsageError("there is no search to rate yet: imagesearch search WORDS")
        match self.numbers:
            case [_]:
                return f"the search for {last.asked}", last.jwt
            case [number, _]:
                hit = last.hit(number)
                return f"{hit.path}, for {last.asked}", hit.jwt
            case _:
                raise UsageError("give a rating, or the number of a hit and a rating")
