"""W3C Trace Context: which request, or which file on its way into the index, a log line anywhere in the product belongs to.

A *trace* is everything that follows from one cause, through every service; a *span* is one service's part in it. Nothing is sent
to a collector: the spans are the log lines (`core.logs`), and the header carries the trace onwards.
https://www.w3.org/TR/trace-context/ says what is well-formed, and what becomes of what is not: it starts a new trace.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
TRACERESPONSE = "traceresponse"
"""The header of an answer, as https://w3c.github.io/trace-context/ drafts it: the trace, and the span that answered."""

_SAMPLED = 0b01
_RANDOM = 0b10
_KNOWN_FLAGS = _SAMPLED | _RANDOM
_LONGEST_STATE = 512
_FIELDS = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_STATE = re.compile(r"[\x20-\x7e\t]+")


@dataclass(frozen=True, slots=True)
class Span:
    """Where in which trace we are. `parent_span_id` is the caller's, None where the trace begins; `state` is other systems' business."""

    trace_id: str
    span_id: str
    parent_span_id: str | None = None
    flags: int = _SAMPLED | _RANDOM
    state: str | None = None

    @property
    def header(self) -> str:
        """Of `traceparent` for whoever is called from here, and of `traceresponse` for whoever called."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


_CURRENT: ContextVar[Span | None] = ContextVar("span", default=None)


def current() -> Span | None:
    return _CURRENT.get()


@contextmanager
def within(span: Span) -> Iterator[None]:
    """For as long as the context lasts, log lines and calls to other services belong to `span`."""
    token = _CURRENT.set(span)
    try:
        yield
    finally:
        _CURRENT.reset(token)


def begun() -> Span:
    """The first span of a new trace."""
    return Span(secrets.token_hex(16), secrets.token_hex(8))


def continued(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> Span:
    """A span of the trace that a request came with: all of its values of either header. One that is not well-formed begins anew."""
    caller = _parsed(traceparents[0]) if len(traceparents) == 1 else None
    if caller is None:
        return begun()
    state = ",".join(tracestates)
    kept = state if len(state) <= _LONGEST_STATE and _STATE.fullmatch(state) else None
    return Span(caller.trace_id, secrets.token_hex(8), caller.span_id, caller.flags, kept)


def outgoing() -> Mapping[str, str]:
    """Headers of a call to another service."""
    span = _CURRENT.get()
    if span is None:
        return {}
    return {TRACEPARENT: span.header} if span.state is None else {TRACEPARENT: span.header, TRACESTATE: span.state}


def _parsed(traceparent: str) -> Span | None:
    """The caller's span. A later version may have more fields, each behind a dash; version ff never is."""
    fields = _FIELDS.fullmatch(traceparent.strip(" \t"))
    if fields is None or fields["version"] == "ff" or (fields["version"] == "00" and fields["more"] is not None):
        return None
    if not fields["trace"].strip("0") or not fields["span"].strip("0"):
        return None
    return Span(fields["trace"], fields["span"], flags=int(fields["flags"], 16) & _KNOWN_FLAGS)
