"""Where the command writes: answers to stdout, everything else to stderr."""

from __future__ import annotations

import io
import json
import sys
import unicodedata
from collections.abc import Mapping, Sequence

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories that move the cursor, turn the writing, or are invisible; a file's name may hold them."""


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the command with 1, which means that nothing was found."""
        raise BrokenPipeError


class Screen:
    """Tables where a person looks, tab-separated lines where a program reads, JSON where it is asked for."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(encoding="utf-8" if as_json else None, errors="replace")
        self.out = _Console(highlight=False, markup=False, emoji=False)
        self.err = _Console(stderr=True, highlight=False, markup=False, emoji=False)

    @property
    def for_people(self) -> bool:
        """Whether stdout is a terminal that a person reads."""
        return self.out.is_terminal and not self.as_json

    def document(self, content: BaseModel | Mapping[str, object]) -> None:
        """One line of JSON."""
        text = content.model_dump_json() if isinstance(content, BaseModel) else json.dumps(content, ensure_ascii=False)
        self.raw(f"{text}\n")

    def line(self, *cells: object) -> None:
        """One tab-separated line for programs."""
        self.raw("\t".join(shown(str(cell)) for cell in cells) + "\n")

    def raw(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def content(self, content: bytes) -> None:
        """What came, byte for byte."""
        sys.stdout.flush()
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()

    def say(self, text: str, style: str = "") -> None:
        """A line for people, beside the answer."""
        self.err.print(Text(shown(text), style), soft_wrap=True)

    def notice(self, notice: str) -> None:
        """What the service says of its models, which holds for every search: its first sentence is enough beside an answer."""
        first, more, _ = notice.partition(". ")
        self.say(f"{first}. More: imagesearch status" if more else notice, "yellow")

    def table(self, rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """Columns for people; those in `right` are aligned to the right."""
        table = Table.grid(padding=(0, 2))
        for column in range(max(map(len, rows), default=0)):
            table.add_column(justify="right" if column in right else "left", overflow="fold", no_wrap=column in right)
        for row in rows:
            table.add_row(*(Text(shown(cell)) for cell in row))
        self.out.print(table)


def shown(text: str) -> str:
    """Text that cannot steer a terminal: what is not to be seen in it becomes `\N{REPLACEMENT CHARACTER}`."""
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(character) in _UNSEEN else character for character in text)
