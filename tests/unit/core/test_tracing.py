"""Trace Context by its grammar: what is continued, and what begins anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from core import tracing
from core.catalog_client import CatalogClient
from core.errors import Unavailable
from core.model_client import ModelClient
from core.tracing import Span, begun, continued, current, outgoing, within

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GIVEN = f"00-{TRACE}-{SPAN}-01"


def test_a_trace_is_continued_under_a_span_of_its_own() -> None:
    span = continued([GIVEN])
    assert (span.trace_id, span.parent_span_id) == (TRACE, SPAN)
    assert span.span_id != SPAN
    assert span.header == f"00-{TRACE}-{span.span_id}-01"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        GIVEN.upper(),
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}a-{SPAN}-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-0g",
        f"0-{TRACE}-{SPAN}-01",
        f"{GIVEN}-more",
        f"{GIVEN}-",
        f"{GIVEN}x",
        f"cc-{TRACE}-{SPAN}-01x",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{'٠' * 32}-{SPAN}-01",
        f"{GIVEN},{GIVEN}",
    ],
)
def test_what_is_not_well_formed_begins_a_new_trace(header: str) -> None:
    span = continued([header], ["vendor=1"])
    assert span.parent_span_id is None
    assert span.state is None
    assert span.trace_id != TRACE


def test_two_headers_begin_a_new_trace() -> None:
    assert continued([GIVEN, GIVEN]).parent_span_id is None
    assert continued([]).parent_span_id is None


@pytest.mark.parametrize("header", [f"01-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-what-comes-later", f" {GIVEN}\t"])
def test_later_versions_are_read_as_far_as_they_are_known_and_answered_in_ours(header: str) -> None:
    span = continued([header])
    assert (span.trace_id, span.parent_span_id) == (TRACE, SPAN)
    assert span.header.startswith("00-")


@pytest.mark.parametrize(("given", "kept"), [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("f4", "00")])
def test_flags_that_are_known_are_kept_and_others_cleared(given: str, kept: str) -> None:
    assert continued([f"00-{TRACE}-{SPAN}-{given}"]).header.endswith(f"-{kept}")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), None),
        (("a=1",), "a=1"),
        (("a=1", "b=2"), "a=1,b=2"),
        (("a=\u00e9",), None),
        (("a=1\r\nX: y",), None),
        (("x" * 513,), None),
    ],
)
def test_other_systems_state_is_passed_on_as_it_came_or_not_at_all(given: tuple[str, ...], kept: str | None) -> None:
    with within(continued([GIVEN], given)):
        assert outgoing().get("tracestate") == kept


def test_a_call_outside_of_any_trace_carries_nothing() -> None:
    assert current() is None
    assert outgoing() == {}


def test_a_call_carries_the_span_it_is_made_from() -> None:
    with within(begun()):
        span = current()
        assert span is not None
        assert outgoing() == {"traceparent": span.header}
        assert continued([span.header]).parent_span_id == span.span_id
    assert current() is None


async def test_what_runs_side_by_side_keeps_its_traces_apart() -> None:
    async def one(span: Span) -> bool:
        with within(span):
            await asyncio.sleep(0.001)
            return current() is span

    assert all(await asyncio.gather(*(one(begun()) for _ in range(20))))


@given(st.text(max_size=80) | st.from_regex(tracing._FIELDS, fullmatch=True))
def test_whatever_comes_the_header_that_goes_on_is_well_formed(header: str) -> None:
    span = continued([header])
    assert continued([span.header]).trace_id == span.trace_id


async def test_calls_to_other_services_carry_the_trace(
    aiohttp_server: Callable[[web.Application], Awaitable[TestServer]],
) -> None:
    came: list[str | None] = []

    async def remember(request: web.Request) -> web.Response:
        came.append(request.headers.get("traceparent"))
        return web.Response(status=503)

    app = web.Application()
    app.router.add_route("*", "/{anywhere:.*}", remember)
    url = str((await aiohttp_server(app)).make_url("/"))
    span = begun()
    async with ModelClient(url) as model, CatalogClient(url) as catalog:
        calls = (
            model.info,
            partial(model.embed_texts, ["a"]),
            partial(model.analyse, b"a"),
            catalog.status,
            partial(catalog.notice, "a"),
        )
        for call in calls:
            with within(span), suppress(Unavailable):
                await call()
            with suppress(Unavailable):
                await call()
    assert came == [span.header, None] * len(calls)
