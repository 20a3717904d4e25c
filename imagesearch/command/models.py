"""`imagesearch models`: which models answer, and what to do about a change of them."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Literal

from core.schemas import ModelChange, ModelsCourse
from imagesearch.client import Client
from imagesearch.command.exits import Exit
from imagesearch.command.screen import Screen, shown


@dataclass(frozen=True, slots=True)
class Models:
    action: Literal["stop", "resume", "revert", "drop"] | None

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "action",
            nargs="?",
            choices=["stop", "resume", "revert", "drop"],
            help=(
                "stop or resume a change of models; revert it, or go back to the models before; "
                "drop what the models before made (default: tell how things are)"
            ),
        )

    def run(self, client: Client, screen: Screen) -> Exit:
        course = client.models() if self.action is None else client.turn_models(self.action)
        if screen.as_json:
            screen.document(course)
        elif screen.for_people:
            for line in _lines(course):
                screen.out.print(shown(line), soft_wrap=True)
        else:
            change = course.change
            told = () if change is None else (f"change={change.profile}", f"done={change.done}", f"total={change.total}")
            screen.line(f"answers={course.profile}", *told, f"previous={course.previous}")
        return Exit.DONE


def changed(change: ModelChange) -> str:
    """How far it is, for people."""
    stopped = ", stopped" if change.stopped else ""
    return f"re-indexing for {change.profile}: {change.done:,} of {change.total:,}{stopped}; {change.answering} answers meanwhile"


def _lines(course: ModelsCourse) -> list[str]:
    lines = [f"answers   {course.profile or 'no models yet'}"]
    if course.change is not None:
        lines.append(f"change    {changed(course.change)}")
    if course.previous is not None:
        lines.append(f"before    {course.previous}, kept: imagesearch models revert goes back, drop removes it")
    if course.notice is not None:
        lines.append(f"notice    {course.notice}")
    return lines
