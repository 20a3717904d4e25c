"""When a file is complete. Pure: what was seen goes in, with its time; the verdict comes out.

1. Open for writing: never, however long the writer pauses.
2. Two looks that agree in size and mtime, a moment apart. A file whose mtime lies back further than the quiet time needs one only.
3. Known to be closed, with its end-of-image marker: at once. Not known: after the quiet time.
4. Without its marker: after a long quiet time; it is then read as it is, and found to be truncated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from watcher.locations import FileStat


class Writing(StrEnum):
    """Whether any process has the file open for writing."""

    OPEN = "open"
    CLOSED = "closed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class SettleRules:
    settle_s: float = 1.5
    truncated_after_s: float = 10.0
    agree_s: float = 0.06
    slowest_look_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a file told. `at` is on any steady clock; `age_s` is the age of its mtime."""

    at: float
    stat: FileStat
    writing: Writing
    complete: bool | None
    age_s: float


class Settling:
    """The looks at one file, and what follows from them."""

    def __init__(self, rules: SettleRules) -> None:
        self._rules = rules
        self._stat: FileStat | None = None
        self._unchanged_since = 0.0
        self._looks_while_open = 0
        self._closed = False
        self._closed_since_look = False

    def close_event(self) -> None:
        """A writer closed the file."""
        self._closed_since_look = True

    def judge(self, look: Look) -> float | None:
        """None: it is complete. Else the seconds after which to look again."""
        self._note(look)
        if look.writing is Writing.OPEN:
            self._looks_while_open += 1
            return min(self._rules.slowest_look_s, self._rules.agree_s * float(1 << min(self._looks_while_open, 16)))
        self._looks_while_open = 0
        patience_s = self._patience_s(look)
        remaining_s = patience_s - self._quiet_s(look)
        if remaining_s <= 0:
            return None
        return min(self._rules.slowest_look_s, max(remaining_s, self._rules.agree_s))

    def _note(self, look: Look) -> None:
        if look.stat != self._stat:
            self._stat = look.stat
            self._unchanged_since = look.at
            self._closed = False
        self._closed = self._closed or self._closed_since_look
        self._closed_since_look = False

    def _patience_s(self, look: Look) -> float:
        if look.complete is False:
            return self._rules.truncated_after_s
        if look.complete and (look.writing is Writing.CLOSED or self._closed):
            return self._rules.agree_s
        return self._rules.settle_s

    def _quiet_s(self, look: Look) -> float:
        """Time without a change: watched, or by the file's own mtime where that can be believed."""
        watched_s = look.at - self._unchanged_since
        believable = look.writing is Writing.CLOSED or look.complete is True
        return max(watched_s, look.age_s) if believable and look.age_s >= self._rules.settle_s else watched_s
