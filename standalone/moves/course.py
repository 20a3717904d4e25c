"""How far a move has come: a file in DATA_DIR, so that one that was broken off goes on where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, Field, ValidationError

from core import files
from core.sql.connection import Connection

COURSE = "vectors-move.json"


class Course(BaseModel):
    """`stamp` is the ledger's when it began: points may have changed since if it has another now."""

    source: str
    target: str
    stamp: str
    begun: dict[str, str | None] = Field(
        default_factory=dict, description="by collection, the first id that may be missing; None: all were copied"
    )

    @classmethod
    def of(cls, data_dir: Path, *, source: str, target: str, stamp: str) -> Self | None:
        """That of the move between these homes, if one was broken off and nothing changed since. Raises OSError."""
        try:
            found = cls.model_validate_json((data_dir / COURSE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return None
        return found if (found.source, found.target, found.stamp) == (source, target, stamp) else None

    def note(self, data_dir: Path) -> None:
        files.write_durably(data_dir / COURSE, self.model_dump_json().encode())

    @staticmethod
    def owned(data_dir: Path, target: str) -> set[str]:
        """Collections that a move to this target, whatever became of it, made there: they may be made anew."""
        try:
            found = Course.model_validate_json((data_dir / COURSE).read_bytes())
        except (FileNotFoundError, ValidationError):
            return set()
        return set(found.begun) if found.target == target else set()

    @staticmethod
    def end(data_dir: Path) -> None:
        (data_dir / COURSE).unlink(missing_ok=True)
        files.sync([data_dir])


def stamp_of(connection: Connection) -> str:
    """Another one whenever a picture was indexed, moved or forgotten in between."""
    row = connection.execute(
        "SELECT count(*) AS images, sum(segments) AS segments, sum(paths_version) AS paths, max(indexed_at) AS indexed_at FROM images"
    ).fetchone()
    return " ".join(str(row[name]) for name in ("images", "segments", "paths", "indexed_at"))
