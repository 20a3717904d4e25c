"""Pictures and regions as the command line names them."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Iterable

from imagesearch.command.exits import UsageError
from imagesearch.command.remembered import remembered
from imagesearch.question import Example

_HIT = re.compile(r"[0-9]{1,5}")
_IMAGE = re.compile(r"([0-9a-f]{64})(?:/([0-9]{1,6}))?")
_SHORT_ID = 8

NamedExample = str | tuple[str, int] | int
"""An image's id, that and the number of its region, or the number of a hit of the last search."""


def named_example(given: str) -> NamedExample:
    """Raises ArgumentTypeError."""
    if _HIT.fullmatch(given):
        return int(given)
    named = _IMAGE.fullmatch(given)
    if named is None:
        raise ArgumentTypeError(f"not the number of a hit, nor an image's id with or without /N: {given}")
    return named[1] if named[2] is None else (named[1], int(named[2]))


def examples(named: Iterable[NamedExample]) -> list[Example]:
    """With the last search's hits for their numbers. Raises UsageError."""
    return [_hit(example) if isinstance(example, int) else example for example in named]


def _hit(number: int) -> Example:
    last = remembered()
    if last is None:
        raise UsageError(f"there is no search yet whose hit {number} could be meant")
    return last.hit(number).example


def short(example: NamedExample) -> str:
    """For people."""
    match example:
        case int():
            return f"hit {example}"
        case str():
            return example[:_SHORT_ID]
        case (image_id, n):
            return f"{image_id[:_SHORT_ID]}/{n}"
