"""What a line of the log says of where it comes from. In a process of its own, since a log is set up once a process."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import Any

_SPEAKING = """
import logging, sys, threading
import structlog
from core import logs, tracing

logs.configure(level="info", log_format=sys.argv[1], service="some")
log = structlog.get_logger()
log.info("nothing_asked")
with tracing.within(tracing.continued(["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"])):
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        log.info("thing_asked", image_id="0123456789abcdef", parent_span_id="00f067aa0ba902b7")
    logging.getLogger("a.library").warning("library_spoke")
thread = threading.Thread(target=lambda: log.info("thread_spoke"))
thread.start()
thread.join()
"""


def _said(log_format: str) -> list[str]:
    spoken = subprocess.run([sys.executable, "-c", _SPEAKING, log_format], capture_output=True, text=True, check=True, timeout=60)
    assert spoken.stdout == ""
    return spoken.stderr.splitlines()


def test_without_stderr_nothing_is_said_and_nothing_fails() -> None:
    speaking = f"exec {shlex.join([sys.executable, '-c', _SPEAKING, 'auto'])} 2>&-"
    subprocess.run(["sh", "-c", speaking], check=True, timeout=60)


def test_a_line_for_programs_names_service_trace_and_span() -> None:
    lines: list[dict[str, Any]] = [json.loads(line) for line in _said("json")]
    by_event = {line["event"]: line for line in lines}
    assert {line["service"] for line in lines} == {"some"}
    asked = by_event["thing_asked"]
    assert (asked["trace_id"], asked["request_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "mine")
    assert asked["parent_span_id"] == "00f067aa0ba902b7"
    assert len(asked["span_id"]) == 16
    assert list(asked) == [
        "timestamp",
        "level",
        "service",
        "event",
        "image_id",
        "request_id",
        "trace_id",
        "span_id",
        "parent_span_id",
    ]
    assert asked["image_id"] == "0123456789abcdef"
    assert by_event["library_spoke"]["span_id"] == asked["span_id"]
    assert "trace_id" not in by_event["nothing_asked"].keys() | by_event["thread_spoke"].keys()


def test_a_line_for_people_is_short_and_has_one_id() -> None:
    nothing, asked, library, thread = _said("console")
    assert asked.endswith("image_id=0123456789ab service=some request_id=mine")
    for line in (nothing, library, thread):
        assert line.endswith("service=some")
