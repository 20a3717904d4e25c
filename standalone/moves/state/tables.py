"""What is moved, and what either end of a move can do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Protocol

from core.errors import ImageSearchError
from core.schemas import StatePart

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows are compared in the order of their `key`, a text or a number in both homes."""

    name: str
    part: StatePart
    key: str


TABLES = (
    Table("editions", StatePart.LEDGER, "fingerprint"),
    Table("course", StatePart.LEDGER, "only_one"),
    Table("images", StatePart.LEDGER, "image_id"),
    Table("paths", StatePart.LEDGER, "path"),
    Table("mounts", StatePart.LEDGER, "path"),
    Table("comparisons", StatePart.LEDGER, "collection"),
    Table("feedback", StatePart.FEEDBACK, "sequence"),
)
"""In an order in which rows may refer to earlier ones."""

PASSING = {StatePart.LEDGER: ("tasks", "hints"), StatePart.FEEDBACK: ("searches",)}
"""In PostgreSQL alone, and left behind: what was sent to the broker is sent anew, what was to be looked at is found by the reconcile."""


class CannotMoveState(ImageSearchError):
    """Nothing was moved; the message says what stands in the way."""


class StateDiffers(ImageSearchError):
    """What was read back is not what was written. Nothing was moved."""


class Home(Protocol):
    """Nobody else works with it while it is open. What is read is of one moment; what is written is there after `commit`, whole, or not at all."""

    @property
    def name(self) -> str:
        """For people, without what may be secret."""
        ...

    @property
    def parts(self) -> frozenset[StatePart]: ...

    @property
    def is_half(self) -> bool:
        """A move into it was broken off between two files; whatever is there came from that move."""
        ...

    def columns(self, table: Table) -> list[str]: ...

    def count(self, table: Table) -> int: ...

    def rows(self, table: Table, columns: Sequence[str]) -> Iterator[Row]:
        """By key, those that were written included."""
        ...

    def clear(self, parts: frozenset[StatePart]) -> None: ...

    def write(self, table: Table, columns: Sequence[str], rows: Iterable[Row]) -> None: ...

    def last_number(self) -> int:
        """The highest number that a rating ever had."""
        ...

    def number_after(self, last: int) -> None:
        """The next rating has a higher number than this one."""
        ...

    def check_alone(self) -> None:
        """Raises CannotMoveState if a part of the product came meanwhile."""
        ...

    def commit(self) -> None: ...


class Tally:
    """Counts rows as they pass, and takes their digest. The same rows give the same digest in either home."""

    def __init__(self) -> None:
        self.rows = 0
        self._digest = sha256()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and (self.rows, self.digest) == (other.rows, other.digest)

    __hash__ = None  # type: ignore[assignment]  # it changes

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def over(self, rows: Iterable[Row]) -> Iterator[Row]:
        for row in rows:
            plain = tuple(map(_plain, row))
            self.rows += 1
            self._digest.update(repr(plain).encode())
            yield plain


def _plain(value: Any) -> Any:
    """As both homes can hold it: SQLite has no booleans and no negative zero, PostgreSQL no NUL in a text."""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return value + 0.0
    return value.replace("\x00", "\ufffd") if isinstance(value, str) else value
