"""`imagesearch export`: what people rated, as JSON Lines or in TREC's formats."""

from __future__ import annotations

from argparse import ArgumentParser
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.files import write_private
from imagesearch.command.screen import Screen
from imagesearch.operations import ExportFormat


@dataclass(frozen=True, slots=True)
class Export:
    format: ExportFormat
    since: datetime | None
    output: Path | None

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument(
            "--format",
            choices=["jsonl", "qrels", "topics"],
            default="jsonl",
            help="a line of JSON for each rating (default), TREC judgements, or the topics that those are about",
        )
        parser.add_argument("--since", type=datetime.fromisoformat, metavar="DATE", help="ratings of this day or later alone")
        parser.add_argument(
            "-o", "--output", type=Path, metavar="FILE", help="where it goes, whole or not at all; default: stdout"
        )

    def run(self, client: Client, screen: Screen) -> Exit:
        if screen.as_json and self.output is None and self.format != "jsonl":
            raise UsageError(f"{self.format} is no JSON: name a file with -o")
        content = client.export(self.format, since=self.since)
        lines = content.count(b"\n")
        if self.output is None:
            screen.content(content)
        else:
            write_private(self.output, content)
            if screen.as_json:
                screen.document({"output": str(self.output), "format": self.format, "lines": lines})
            else:
                screen.say(f"{lines:,} lines in {self.output}")
        if not lines:
            screen.say("nothing was rated yet", "dim")
        return Exit.DONE if lines else Exit.NOTHING
