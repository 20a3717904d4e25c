"""`imagesearch embeddings`: what models made of all pictures, out as Parquet, and in from elsewhere."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from imagesearch.backfill.journal import UnusableJournal
from imagesearch.backfill.rows import UnreadableSource
from imagesearch.client import Client
from imagesearch.command.exits import Exit, UsageError
from imagesearch.command.importing import Importing
from imagesearch.command.screen import Screen
from imagesearch.parts import ForeignPart, PageT, Parts, SingleVectors
from imagesearch.wholes import Wholes
from searchsvc.schemas import AnalysesPage, EmbeddingsPage

_PAGE = 500
_WHOLE_PAGE = 20


@dataclass(frozen=True, slots=True)
class Embeddings:
    action: Literal["export", "import"]
    place: Path
    model: str | None
    segments: bool
    complete: bool
    part_pages: int
    metadata: Path | None
    vector_column: str | None
    watched: str | None
    whole_pictures_alone: bool
    checks: int
    state: Path | None
    at_once: int
    retry: bool
    patience_s: float
    wait_s: float
    timeout: float

    @staticmethod
    def arguments(parser: ArgumentParser) -> None:
        parser.add_argument("action", choices=["export", "import"], help="export: into Parquet files; import: from such, or .npy")
        parser.add_argument("place", type=Path, help="where the parts go, or what is read; given again, it goes on")
        parser.add_argument(
            "--model", help="a model's name or collection (default: the first); of an import: whose vectors they are"
        )
        out = parser.add_argument_group("of an export")
        out.add_argument("--segments", action="store_true", help="also those of the regions")
        out.add_argument("--complete", action="store_true", help="all that was found, of all models, for an import elsewhere")
        out.add_argument(
            "--part-pages", type=int, default=100, metavar="N", help=f"pages of {_PAGE} vectors in a part (default 100)"
        )
        Importing.arguments(parser.add_argument_group("of an import"))

    def run(self, client: Client, screen: Screen) -> Exit:
        if self.action == "import":
            importing = Importing(
                self.place,
                model=self.model,
                metadata=self.metadata,
                vector_column=self.vector_column,
                watched=self.watched,
                whole_pictures_alone=self.whole_pictures_alone,
                checks=self.checks,
                state=self.state,
                at_once=self.at_once,
                retry=self.retry,
                patience_s=self.patience_s,
                wait_s=self.wait_s,
                timeout=self.timeout,
            )
            try:
                return importing.run(client, screen)
            except (UnreadableSource, UnusableJournal) as error:
                raise UsageError(str(error)) from None
        try:
            if self.complete:
                parts = Parts(self.place, Wholes())
                return self._export(parts, lambda made_by, cursor: self._analyses(client, made_by, cursor), screen, None)
            vectors = Parts(self.place, SingleVectors())
            return self._export(vectors, lambda model, cursor: self._vectors(client, model, cursor), screen, self.model)
        except (ImportError, ForeignPart) as error:
            raise UsageError(str(error)) from None

    def _export(
        self, parts: Parts[PageT], pages: Callable[[str | None, str | None], Iterator[PageT]], screen: Screen, name: str | None
    ) -> Exit:
        rows = 0
        with parts.alone():
            name, cursor = parts.left_at() or (name, None)
            while cursor != "":
                rows += parts.write(pages(name, cursor))
                name, cursor = parts.left_at() or (name, "")
                screen.say(f"{rows:,} rows in {self.place}", "dim")
        if screen.as_json:
            screen.document({"folder": str(self.place), "collection": name, "rows": rows})
        else:
            screen.say(f"all that {name} made is in {self.place}; {rows:,} rows are new")
        return Exit.DONE

    def _vectors(self, client: Client, model: str | None, cursor: str | None) -> Iterator[EmbeddingsPage]:
        for _ in range(max(1, self.part_pages)):
            page = client.embeddings(model, cursor=cursor, limit=_PAGE, segments=self.segments)
            yield page
            model, cursor = page.space.collection, page.cursor
            if cursor is None:
                return

    def _analyses(self, client: Client, made_by: str | None, cursor: str | None) -> Iterator[AnalysesPage]:
        for _ in range(max(1, self.part_pages)):
            page = client.analyses(fingerprint=made_by, cursor=cursor, limit=_WHOLE_PAGE)
            yield page
            made_by, cursor = page.fingerprint, page.cursor
            if cursor is None:
                return
