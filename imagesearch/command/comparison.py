"""What two models make of one question, side by side on the screen."""

from __future__ import annotations

from imagesearch.command.screen import Screen
from searchsvc.search_schema import CompareAnswer, ComparedImage


def show_comparison(compared: CompareAnswer, screen: Screen) -> None:
    if screen.as_json:
        screen.document(compared)
        return
    for notice in dict.fromkeys(answer.notice for answer in compared.answers if answer.notice):
        screen.notice(notice)
    paths = {match.image_id: match.path for answer in compared.answers for match in answer.matches}
    if not screen.for_people:
        for image in compared.images:
            screen.line(*_cells(image, decimals=4), paths[image.image_id], image.image_id)
        return
    if not compared.images:
        screen.say("nothing found", "dim")
        return
    one, other = compared.answers
    rows = [(*_cells(image, decimals=3), _change(image), paths[image.image_id]) for image in compared.images]
    screen.table([("", one.model_name, "", other.model_name, "", ""), *rows], right=(0, 1, 2, 3))
    screen.say(
        f"{compared.overlap} of {len(rows)} by both; {one.model_name} in {one.took_ms:.0f} ms, "
        f"{other.model_name} in {other.took_ms:.0f} ms; scores of different models are not comparable",
        "dim",
    )


def _cells(image: ComparedImage, *, decimals: int) -> tuple[str, str, str, str]:
    """Rank and score with the one model, rank and score with the other; empty where it is not among the first."""
    (rank, other_rank), (score, other_score) = image.ranks, image.scores
    return _number(rank), _number(score, decimals), _number(other_rank), _number(other_score, decimals)


def _number(value: float | None, decimals: int = 0) -> str:
    return "" if value is None else f"{value:.{decimals}f}"


def _change(image: ComparedImage) -> str:
    """From the one model to the other, in the page's signs; nothing where it is not among the other's first."""
    rank, other = image.ranks
    if other is None:
        return ""
    if rank is None:
        return "new"
    return "=" if rank == other else f"↑{rank - other}" if other < rank else f"↓{other - rank}"
