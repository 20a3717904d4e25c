"""The documented API and the real one are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from aiohttp import web

from searchsvc import openapi
from searchsvc.app import create_app
from searchsvc.operations import OPERATIONS
from searchsvc.search_schema import SearchOptions
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, picture
from tests.unit.searchsvc.conftest import World

CHECKED_IN = Path(__file__).resolve().parents[3] / "docs" / "reference" / "openapi.json"
PAGES = {
    "/",
    "/static/{name}",
    "/docs",
    "/docs/files/start.js",
    "/docs/files/redoc.standalone.js",
    "/docs/files/{name}",
    "/redoc",
    "/openapi.json",
}
"""For people, not for programs."""


def _routes(tmp_path: Path) -> set[tuple[str, str]]:
    settings = SearchSettings(images_dir=tmp_path, data_dir=tmp_path)
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog())
    routed = {(route.method.lower(), _path(route)) for route in app.router.routes()}
    return {(method, path) for method, path in routed if method != "head"}


def _path(route: web.AbstractRoute) -> str:
    assert route.resource is not None
    return route.resource.canonical


def test_every_route_is_documented_and_nothing_else(tmp_path: Path) -> None:
    documented = {(operation.method, operation.path) for operation in OPERATIONS}
    assert {(method, path) for method, path in _routes(tmp_path) if path not in PAGES} == documented


def test_the_checked_in_document_is_the_generated_one() -> None:
    assert CHECKED_IN.read_text() == openapi.document_json(), "run: python -m searchsvc.openapi > docs/reference/openapi.json"


async def test_the_served_document_is_the_generated_one(world: World) -> None:
    assert await (await world.client.get("/openapi.json")).json() == openapi.document()


def test_every_reference_leads_somewhere() -> None:
    document = openapi.document()

    def references(node: Any) -> set[str]:
        if isinstance(node, dict):
            own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
            return own.union(*(references(value) for value in node.values()))
        return set().union(*(references(value) for value in node)) if isinstance(node, list) else set()

    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
        assert target


def test_the_examples_are_acceptable_requests() -> None:
    for operation in OPERATIONS:
        for _, example in operation.examples:
            assert operation.request is not None
            operation.request.model_validate(example)


def test_the_form_has_the_fields_of_the_json_request_and_a_file() -> None:
    search = next(operation for operation in OPERATIONS if operation.name == "searchImage")
    assert search.form is not None
    assert set(search.form["properties"]) == set(SearchOptions.model_fields) | {"file"}


@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation.method == "get"], ids=lambda o: o.name)
async def test_good_answers_are_what_the_document_promises(world: World, operation: Any) -> None:
    if operation.name == "streamStatus":
        pytest.skip("an endless answer: see test_operations")
    image_id = await world.add(picture("red"), "red.png")
    needed = {one["name"]: one["schema"]["enum"][0] for one in operation.parameters if one["required"] and one["in"] == "query"}
    answer = await world.client.get(operation.path.format(image_id=image_id, n=0), params=needed)
    promised = openapi.document()["paths"][operation.path]["get"]["responses"][str(answer.status)]
    assert answer.content_type in promised["content"]
    if answer.content_type == "application/json":
        _validate(promised["content"]["application/json"]["schema"], await answer.json())


@pytest.mark.parametrize("scope", ["images", "segments", "both"])
async def test_search_and_feedback_are_what_the_document_promises(world: World, scope: str) -> None:
    await world.add(picture("red"), "red.png")
    found = await world.search(text="red", scope=scope)
    _validate({"$ref": "#/components/schemas/SearchAnswer"}, found)
    answer = await world.client.post("/api/v1/create-feedback", json={"user_feedback": 5, "jwt": found["jwt"]})
    _validate({"$ref": "#/components/schemas/FeedbackAnswer"}, await answer.json())


def _validate(schema: dict[str, Any], document: Any) -> None:
    whole = {**schema, "components": openapi.document()["components"]}
    jsonschema_rs.validator_for(json.dumps(whole)).validate(document)
