"""Whether a connection gets on, or only holds its place. Seconds of one clock, which the caller reads."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Stall(StrEnum):
    """What a connection is given up for."""

    HEAD = "head"
    """A request was not asked to its end, or none was."""
    BODY = "body"
    """Its content comes too slowly."""
    ANSWER = "answer"
    """The answer is not taken."""
    END = "end"
    """It was closed, and the other side does not take what is left."""


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`body_grace_s` passes before a body must come at `least_bytes_per_s` on average (nginx and Apache time heads and bodies so too).

    What comes faster is credited with `body_credit_s` at most: who sent much may be silent for no longer than that and the grace.
    """

    head_s: float = 20.0
    body_grace_s: float = 20.0
    body_credit_s: float = 40.0
    least_bytes_per_s: float = 2048.0
    answer_s: float = 60.0
    """Without an answer that waits being taken at that rate."""
    end_s: float = 10.0
    look_every_s: float = 1.0


class Pace:
    """One connection's. `None` stands for what is not being waited for."""

    __slots__ = ("_answer_since", "_body_since", "_end_since", "_head_since", "_limits", "answering")

    def __init__(self, limits: PaceLimits, now: float) -> None:
        self._limits = limits
        self._head_since: float | None = now
        self._body_since: float | None = None
        self._answer_since: float | None = None
        self._end_since: float | None = None
        self.answering = False

    @property
    def head_is_due(self) -> bool:
        """Whether a request is being waited for that has begun, or that should; not while one is answered, or none is due."""
        return self._head_since is not None

    def took(self, size: int, now: float) -> None:
        """Bytes arrived."""
        if self.answering:
            if self._body_since is not None:
                self._body_since = min(now + self._limits.body_credit_s, self._body_since + size / self._limits.least_bytes_per_s)
        elif self._head_since is None:
            self._head_since = now

    def request_began(self, now: float) -> None:
        """Its head is complete."""
        self.answering, self._head_since = True, None
        self._body_since = now

    def request_ended(self) -> None:
        self.answering, self._body_since = False, None

    def answer_waits(self, now: float | None) -> None:
        """The other side takes nothing any more; None: it does again."""
        self._answer_since = now

    def answer_taken(self, size: int, now: float) -> None:
        """So many bytes of one that waits."""
        if self._answer_since is not None:
            self._answer_since = min(now, self._answer_since + size / self._limits.least_bytes_per_s)

    def ending(self, now: float) -> None:
        self._end_since = now if self._end_since is None else self._end_since

    def body_complete(self) -> None:
        self._body_since = None

    def body_unread_for(self, seconds: float) -> None:
        """We did not read meanwhile: that is not the other side's fault."""
        if self._body_since is not None:
            self._body_since += seconds

    def stall(self, now: float) -> Stall | None:
        """Why to give the connection up."""
        limits = self._limits
        if _over(self._end_since, limits.end_s, now):
            return Stall.END
        if _over(self._answer_since, limits.answer_s, now):
            return Stall.ANSWER
        if _over(self._head_since, limits.head_s, now):
            return Stall.HEAD
        return Stall.BODY if _over(self._body_since, limits.body_grace_s, now) else None


def _over(since: float | None, allowed_s: float, now: float) -> bool:
    return since is not None and now - since > allowed_s
