"""`imagesearch embeddings export`: what a model made of all pictures, as Parquet."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.screen import Screen
from imagesearch.parts import Parts
from searchsvc.schemas import EmbeddingsPage

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Embeddings:
    action: Literal["export"]
    folder: Path
    model: str | None
    segments: bool
    part_pages: int

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["export"], help="export: into Parquet files")
        parser.add_argument("folder", type=Path, help="where the parts go; given again, it goes on behind the last one")
        parser.add_argument("--model", help="a model's name or collection (default: the first)")
        parser.add_argument("--segments", action="store_true", help="also those of the regions")
        parser.add_argument(
            "--part-pages", type=int, default=100, metavar="N", help=f"pages of {_PAGE} vectors in a part (default 100)"
        )

    def run(self, client: Client, screen: Screen) -> Exit:
        try:
            parts = Parts(self.folder)
        except ImportError as error:
            raise UsageError(str(error)) from None
        model, cursor = parts.left_at() or (self.model, None)
        rows = 0
        while cursor != "":
            rows += parts.write(self._pages(client, model, cursor))
            model, cursor = parts.left_at() or (model, "")
            screen.say(f"{rows:,} vectors in {self.folder}", "dim")
        if screen.as_json:
            screen.document({"folder": str(self.folder), "collection": model, "rows": rows})
        else:
            screen.say(f"all vectors of {model} are in {self.folder}; {rows:,} of them are new")
        return Exit.DONE

    def _pages(self, client: Client, model: str | None, cursor: str | None) -> Iterator[EmbeddingsPage]:
        for _ in range(max(1, self.part_pages)):
            page = client.embeddings(model, cursor=cursor, limit=_PAGE, segments=self.segments)
            yield page
            model, cursor = page.space.collection, page.cursor
            if cursor is None:
                return
