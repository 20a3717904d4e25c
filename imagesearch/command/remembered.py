"""The last search, kept so that it can be rated and gone on with: its tokens lie in a file that only the user can read."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from imagesearch.command.exits import UsageError
from imagesearch.command.files import write_private
from searchsvc.search_schema import SearchAnswer


class RememberedHit(BaseModel):
    """`n` is the number of the region that was found; None where the whole picture was."""

    model_config = ConfigDict(frozen=True)

    path: str
    jwt: str
    image_id: str
    n: int | None

    @property
    def example(self) -> str | tuple[str, int]:
        """What it is meant as, where it stands for what is wanted."""
        return self.image_id if self.n is None else (self.image_id, self.n)


class RememberedSearch(BaseModel):
    """`first` is the number that the first hit was shown with; `jwt` and `cursor` are of the latest page."""

    model_config = ConfigDict(frozen=True)

    url: str
    asked: str
    jwt: str
    cursor: str | None
    first: int
    hits: tuple[RememberedHit, ...]

    @classmethod
    def of(cls, answer: SearchAnswer, *, url: str, asked: str, first: int) -> RememberedSearch:
        return cls(url=url, asked=asked, jwt=answer.jwt, cursor=answer.cursor, first=first, hits=_hits(answer))

    def gone_on(self, page: SearchAnswer) -> RememberedSearch:
        """With a further page: its hits have the next numbers."""
        return self.model_copy(update={"jwt": page.jwt, "cursor": page.cursor, "hits": (*self.hits, *_hits(page))})

    @property
    def next_number(self) -> int:
        return self.first + len(self.hits)

    def hit(self, number: int) -> RememberedHit:
        """By the number that it was shown with. Raises UsageError."""
        if not self.first <= number < self.next_number:
            raise UsageError(f"the last search showed hits {self.first} to {self.next_number - 1}, and no {number}")
        return self.hits[number - self.first]


def _hits(answer: SearchAnswer) -> tuple[RememberedHit, ...]:
    return tuple(
        RememberedHit(path=match.path, jwt=match.jwt, image_id=match.image_id, n=match.segment.n if match.segment else None)
        for match in answer.matches
    )


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
    return state_home() / "last-search.json"


def state_home() -> Path:
    """As the XDG base directory specification has it: state that outlives a session and is no setting."""
    named = os.environ.get("XDG_STATE_HOME", "")
    home = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    return home / "imagesearch"
