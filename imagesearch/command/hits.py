"""What a search found, on the screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from imagesearch.client import Client
from imagesearch.command.screen import Screen, shown
from imagesearch.command.terminal import Graphics, graphics_of_terminal
from imagesearch.command.thumbnails import draw
from imagesearch.errors import ImageSearchError
from searchsvc.search_schema import Explanation, MatchView, SearchAnswer, TermKind, TermView

_THUMBNAIL_PIXELS: Literal[256] = 256
_ID_CHARACTERS = 64
"""Behind them a term names the region."""
_SHORT_ID = 8
_TERMS: dict[TermKind, str] = {
    "text": "“{words}”",
    "negative_text": "not “{words}”",
    "image_id": "like {image}",
    "file": "picture {image}",
    "region": "the part of {image}",
    "like": "like {image}",
    "unlike": "unlike {image}",
    "feedback": "earlier ratings",
}

Numbered = Sequence[tuple[int, MatchView]]
Thumbnails = Literal["auto"] | Graphics


def show_hits(answer: SearchAnswer, client: Client, screen: Screen, *, first: int, thumbnails: Thumbnails) -> None:
    """`first` is the number of the first hit."""
    if screen.as_json:
        screen.document(answer)
        return
    if answer.notice:
        screen.notice(answer.notice)
    numbered = list(enumerate(answer.matches, first))
    if not screen.for_people:
        _list(numbered, screen)
        return
    if not numbered:
        screen.say("nothing found", "dim")
        return
    graphics = graphics_of_terminal() if thumbnails == "auto" else Graphics(thumbnails)
    if graphics is Graphics.NONE:
        _tabulate(numbered, screen)
    else:
        for number, match in numbered:
            _draw_hit(number, match, client, screen, graphics)
    _say_summary(answer, screen, first=first)


def _list(numbered: Numbered, screen: Screen) -> None:
    for number, match in numbered:
        screen.line(number, f"{match.score:.4f}", match.path, match.segment.label if match.segment else "", match.image_id)
        for term in match.explanation.terms if match.explanation else ():
            screen.line(
                "", f"{term.weight * term.similarity:.4f}", term.of, term.ref, f"{term.weight:.4f}", f"{term.similarity:.4f}"
            )


def _tabulate(numbered: Numbered, screen: Screen) -> None:
    rows: list[tuple[str, ...]] = []
    for number, match in numbered:
        rows.append((str(number), f"{match.score:.3f}", match.path, *_about(match)))
        rows += [("", *cells) for cells in _explained(match.explanation)]
    screen.table(rows, right=(0, 1))


def _about(match: MatchView) -> tuple[str, str]:
    """Size; and the region where one matched, and how many images it stands for."""
    region, others = match.segment, len(match.near_duplicates)
    more = [f"region: {region.label} {region.score:.0%} sure"] if region else []
    more += [f"and {others} near-duplicate{'s' if others > 1 else ''}"] if others else []
    return f"{match.width} × {match.height}", ", ".join(more)


def _explained(explanation: Explanation | None) -> Iterator[tuple[str, str, str]]:
    """A row for each term: what it adds, what it is, and how that comes about; before them the two scores that `both` is made of."""
    if explanation is None:
        return
    if explanation.whole is not None and explanation.region is not None:
        yield "", f"the whole {explanation.whole:.3f}, its region {explanation.region_n} {explanation.region:.3f}", ""
    for term in explanation.terms:
        yield f"{term.weight * term.similarity:+.3f}", _in_words(term), f"{term.weight:.2f} × {term.similarity:.3f}"


def _in_words(term: TermView) -> str:
    return _TERMS[term.of].format(words=term.ref, image=term.ref[:_SHORT_ID] + term.ref[_ID_CHARACTERS:])


def _draw_hit(number: int, match: MatchView, client: Client, screen: Screen, graphics: Graphics) -> None:
    lines = [f"{number}  {match.score:.3f}", match.path, *_about(match)]
    lines = [shown(line) for line in lines]
    try:
        thumbnail = client.thumbnail(match.image_id, size=_THUMBNAIL_PIXELS)
        drawn = draw(thumbnail, lines, match, graphics, width=screen.out.width)
    except ImageSearchError:  # its file has just gone, or a proxy answers: the words still stand
        drawn = "".join(f"{line}\n" for line in [*lines, ""])
    screen.raw(drawn)
    if match.explanation:
        screen.table(list(_explained(match.explanation)), right=(0,))
        screen.raw("\n")


def _say_summary(answer: SearchAnswer, screen: Screen, *, first: int) -> None:
    found = f"{len(answer.matches)} by {answer.model_name} in {answer.took_ms:.0f} ms"
    further = "; the next page: imagesearch search --next" if answer.cursor else ""
    screen.say(f"{found}; rate one: imagesearch rate {first} 9{further}", "dim")
