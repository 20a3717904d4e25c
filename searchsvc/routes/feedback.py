"""Feedback: what somebody thinks of a search, signed by the search itself, and what everybody thought so far."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime

from aiohttp import hdrs, web
from pydantic import RootModel

from core.errors import InvalidRequest
from core.web import json_answer, parse, read_json
from searchsvc.feedback import Rating, RecentSearch
from searchsvc.feedback_export import ExportFormat
from searchsvc.limiting import address_of
from searchsvc.routes.asking import check_may_read, number
from searchsvc.schemas import FeedbackAnswer, FeedbackRequest, JsonObject
from searchsvc.services import SERVICES, Services
from searchsvc.tokens import Claims
from searchsvc.urls import API

_CONTENT_TYPES = {
    ExportFormat.JSONL: "application/x-ndjson",
    ExportFormat.QRELS: "text/plain; charset=utf-8",
    ExportFormat.TOPICS: "text/plain; charset=utf-8",
}


class _AnyObject(RootModel[JsonObject]):
    """A JSON object whose token is looked at before anything else in it."""


def routes() -> list[web.RouteDef]:
    return [
        web.post(f"{API}/create-feedback", create_feedback),
        web.get(f"{API}/feedback", export, allow_head=False),
        web.get(f"{API}/feedback/report", report),
    ]


async def create_feedback(request: web.Request) -> web.Response:
    """The order is part of the contract: not JSON 400, no valid token 401, not acceptable 422 (spends nothing), spent before 409."""
    services = request.app[SERVICES]
    document = (await read_json(request, _AnyObject)).root
    with services.admission.place():
        return await _created(request, services, document)


async def _created(request: web.Request, services: Services, document: JsonObject) -> web.Response:
    claims = services.signer.verify(document.get("jwt"))
    feedback = parse(FeedbackRequest, document)
    if feedback.image_id is not None and feedback.image_id not in claims.ids:
        raise InvalidRequest("the search did not show this image", field="image_id")
    client = services.clients.name(authorization=request.headers.get(hdrs.AUTHORIZATION), address=address_of(request))
    rating = _rating(claims, feedback, client, await services.reranking.recall(claims.sid))
    feedback_id = await services.feedback.add(rating)
    services.metrics.note_rating(rating.rating, of_image=rating.image_id is not None)
    await services.reranking.learn(rating)
    return json_answer(FeedbackAnswer(feedback_id=feedback_id), status=201)


def _rating(claims: Claims, feedback: FeedbackRequest, client: str, search: RecentSearch | None) -> Rating:
    """With the whole list that was shown, where the search is still remembered; a match's token knows but its own place in it."""
    return Rating(
        jti=claims.jti,
        rating=feedback.user_feedback,
        image_id=feedback.image_id or claims.rated_image,
        segment=claims.segment,
        search_id=claims.sid,
        query=claims.query,
        model=claims.model,
        model_name=claims.name,
        shown=search.shown if search else claims.ids,
        scores=search.scores if search else claims.scores,
        first_rank=search.first_rank if search else claims.rank,
        client=client,
        rotation=claims.rotation,
        query_vector=search.vector if search else None,
    )


async def export(request: web.Request) -> web.StreamResponse:
    services = request.app[SERVICES]
    check_may_read(request)
    wanted, chunks = _asked_export(request, services)
    first = await anext(chunks, b"")  # what fails, fails before the answer has begun
    response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: _CONTENT_TYPES[wanted]})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the reader went away
        await response.write(first)
        async for chunk in chunks:
            await response.write(chunk)
        await response.write_eof()
    return response


async def report(request: web.Request) -> web.Response:
    services = request.app[SERVICES]
    check_may_read(request)
    return json_answer(await services.feedback_export.report(since=_since(request)))


def _asked_export(request: web.Request, services: Services) -> tuple[ExportFormat, AsyncIterator[bytes]]:
    since, after, limit = (
        _since(request),
        number(request, "cursor", default=None, least=0, most=10**15 - 1),
        number(request, "limit", default=None, least=1, most=1_000_000),
    )
    try:
        wanted = ExportFormat(request.query.get("format", ExportFormat.JSONL))
    except ValueError:
        raise InvalidRequest(f"format: must be one of {', '.join(ExportFormat)}", field="format") from None
    if wanted is ExportFormat.JSONL:
        return wanted, services.feedback_export.records(after=after or 0, since=since, limit=limit)
    for name, given in (("cursor", after), ("limit", limit)):
        if given is not None:
            raise InvalidRequest(f"{name}: is for jsonl; part of the judgements would make other grades", field=name)
    return wanted, services.feedback_export.judged(wanted, since=since)


def _since(request: web.Request) -> datetime | None:
    given = request.query.get("since")
    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given.replace(" ", "+"))  # a plus sign that was not escaped arrives as a blank
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest("since: must be an ISO 8601 date or time", field="since") from None
