"""How much is answered at once. What comes on top is refused before any work, so that what was taken is answered in time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import Overloaded


class Admission:
    """Counts requests in, for as long as they are answered."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._admitted = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Raises Overloaded when all places are taken."""
        if self._admitted >= self._most:
            raise Overloaded("more is asked than can be answered: try again in a moment", retry_after_s=1)
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1
