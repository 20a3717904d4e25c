"""Feedback: what somebody thinks of a search, signed by the search itself."""

from __future__ import annotations

from aiohttp import web
from pydantic import RootModel

from core.errors import InvalidRequest
from core.web import json_answer, parse, read_json
from searchsvc.feedback import Rating
from searchsvc.schemas import FeedbackAnswer, FeedbackRequest, JsonObject
from searchsvc.services import SERVICES
from searchsvc.urls import API


class _AnyObject(RootModel[JsonObject]):
    """A JSON object whose token is looked at before anything else in it."""


def routes() -> list[web.RouteDef]:
    return [web.post(f"{API}/create-feedback", create_feedback)]


async def create_feedback(request: web.Request) -> web.Response:
    """The order is part of the contract: not JSON 400, no valid token 401, not acceptable 422 (spends nothing), spent before 409."""
    services = request.app[SERVICES]
    document = (await read_json(request, _AnyObject)).root
    claims = services.signer.verify(document.get("jwt"))
    feedback = parse(FeedbackRequest, document)
    if feedback.image_id is not None and feedback.image_id not in claims.ids:
        raise InvalidRequest("the search did not show this image", field="image_id")
    feedback_id = await services.feedback.add(
        Rating(
            jti=claims.jti,
            rating=feedback.user_feedback,
            image_id=feedback.image_id or claims.rated_image,
            segment=claims.segment,
            search_id=claims.sid,
            query=claims.query,
            model=claims.model,
            shown=claims.ids,
        )
    )
    return json_answer(FeedbackAnswer(feedback_id=feedback_id), status=201)
