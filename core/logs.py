"""structlog, set up once a process: events are `noun_verbed` with fields; console on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Literal, TextIO

import structlog
from structlog.tracebacks import ExceptionDictTransformer

from core import tracing

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor, WrappedLogger

_IDS = ("request_id", "trace_id", "span_id", "parent_span_id")
_SHORT_ID = 12


class _LineClearingHandler(logging.StreamHandler[TextIO]):
    """Wipes the terminal's current line first, so that a record never lands behind the progress line that stands there."""

    def format(self, record: logging.LogRecord) -> str:
        return "\r\x1b[K" + super().format(record)


def configure(*, level: str, log_format: Literal["auto", "console", "json"], service: str) -> None:
    """Send structlog's and the standard library's records to stderr in one format. Call it in `__main__` only."""
    on_terminal = sys.stderr is not None and sys.stderr.isatty()  # None where a shell has closed it
    as_console = log_format == "console" or (log_format == "auto" and on_terminal)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _origin(service),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if as_console else "iso", utc=not as_console),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Processor = structlog.dev.ConsoleRenderer(
        colors=on_terminal and not os.environ.get("NO_COLOR"),
        exception_formatter=structlog.dev.plain_traceback,
        sort_keys=False,
    )
    if not as_console:  # neither format shows local variables: they may hold tokens and keys
        shared.append(structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)))
        renderer = structlog.processors.JSONRenderer()
    shared.append(_briefly if as_console else _in_reading_order)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = _LineClearingHandler(sys.stderr) if on_terminal else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer], foreign_pre_chain=shared
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("aiohttp.access", "httpx", "httpcore", "watchdog", "PIL", "urllib3", "filelock", "asyncio"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))


def _origin(service: str) -> Processor:
    """Adds which service speaks, in any thread, and of which trace."""

    def add_origin(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = service
        if (span := tracing.current()) is not None:
            event.update(trace_id=span.trace_id, span_id=span.span_id)
        return event

    return add_origin


def _in_reading_order(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """When, how bad, who and what first; then what the event tells; the ids last."""
    first = {name: event[name] for name in ("timestamp", "level", "service", "event") if name in event}
    last = {name: event[name] for name in _IDS if name in event}
    return {**first, **{name: value for name, value in event.items() if name not in first | last}, **last}


def _briefly(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """For a terminal: of the ids, the request's is enough, and an image has a path; the rest is for programs."""
    kept = {name: value for name, value in event.items() if name not in _IDS}
    if (image_id := kept.get("image_id")) is not None:
        kept["image_id"] = image_id[:_SHORT_ID]
    asked = {"request_id": event["request_id"]} if "request_id" in event else {}
    return {**kept, "service": kept.pop("service"), **asked}
