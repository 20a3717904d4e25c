"""The last search, kept so that it can be rated: its tokens lie in a file that only the user can read."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from imagesearch.command.files import write_private
from searchsvc.search_schema import SearchAnswer


class RememberedHit(BaseModel):
    model_config = ConfigDict(frozen=True)

    path: str
    jwt: str


class RememberedSearch(BaseModel):
    """`first` is the number that the first hit was shown with."""

    model_config = ConfigDict(frozen=True)

    url: str
    asked: str
    jwt: str
    first: int
    hits: tuple[RememberedHit, ...]

    @classmethod
    def of(cls, answer: SearchAnswer, *, url: str, asked: str, first: int) -> RememberedSearch:
        hits = tuple(RememberedHit(path=match.path, jwt=match.jwt) for match in answer.matches)
        return cls(url=url, asked=asked, jwt=answer.jwt, first=first, hits=hits)

    def hit(self, number: int) -> RememberedHit | None:
        """By the number that it was shown with."""
        index = number - self.first
        return self.hits[index] if 0 <= index < len(self.hits) else None


def remembered() -> RememberedSearch | None:
    try:
        return RememberedSearch.model_validate_json(_path().read_bytes())
    except (OSError, ValidationError):
        return None


def remember(search: RememberedSearch) -> None:
    """Replace what was remembered, whole or not at all. Raises OSError."""
    path = _path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, search.model_dump_json().encode())


def _path() -> Path:
    """As the XDG base directory specification has it: state that outlives a session and is no setting."""
    named = os.environ.get("XDG_STATE_HOME", "")
    home = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    return home / "imagesearch" / "last-search.json"
