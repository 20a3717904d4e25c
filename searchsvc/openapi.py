"""OpenAPI 3.1, generated from the table of operations and the models that the routes really use.

python -m searchsvc.openapi > docs/reference/openapi.json
"""

from __future__ import annotations

import json
import sys
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from core.problems import PROBLEM_JSON
from searchsvc.forms import Json
from searchsvc.limiting import kind_of
from searchsvc.operations import OPERATIONS, SCHEMAS, Answer, Operation
from searchsvc.schemas import Problem

API_VERSION = "1.0"
_MEANING = {
    400: "not parseable",
    401: "no valid credential",
    403: "not by that name, or not from a page of another site",
    404: "there is no such thing",
    408: "stopped arriving, or came too slowly",
    409: "done already, or not possible yet",
    413: "larger than the limit",
    415: "not a content type, or not a kind of picture, that is read",
    416: "outside the file",
    422: "understood, but not acceptable; `errors` names the field",
    429: "asked too often; `Retry-After` says when to try again",
    500: "a fault of this service",
    503: "something this needs is away or busy; `Retry-After` says when to try again",
    507: "a disk is full; `Retry-After` says when to try again",
}


def document() -> Json:
    """The whole document."""
    models = [(model, mode) for model, mode in _models().items()]
    _, definitions = models_json_schema(models, ref_template=SCHEMAS + "{model}")
    paths: Json = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "imagesearch",
            "version": API_VERSION,
            "description": "Find pictures of a folder by words, by another picture, or by a region of one. "
            "Every error is an RFC 9457 problem document.",
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "tags": [{"name": "search"}, {"name": "feedback"}, {"name": "images"}, {"name": "operations"}],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(definitions["$defs"].items())),
            "responses": {_error_name(status): _error(status) for status in sorted(_MEANING)},
            "securitySchemes": {
                "apiKey": {"type": "http", "scheme": "bearer", "description": "one of API_KEYS; needed beyond loopback"}
            },
        },
    }


@cache
def document_json() -> str:
    """Made once a process: it takes 40 ms."""
    return json.dumps(document(), indent=2) + "\n"


def _models() -> dict[type[BaseModel], JsonSchemaMode]:
    modes: dict[type[BaseModel], JsonSchemaMode] = {Problem: "serialization"}
    for operation in OPERATIONS:
        if operation.request is not None:
            modes[operation.request] = "validation"
        modes.update({answer.model: "serialization" for answer in operation.answers if answer.model is not None})
    return modes


def _operation(operation: Operation) -> Json:
    described: Json = {"operationId": operation.name, "tags": [operation.tag], "summary": operation.summary}
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = list(operation.parameters)
    if operation.request is not None or operation.form is not None:
        described["requestBody"] = {"required": True, "content": _request_content(operation)}
    errors = {str(status): {"$ref": f"#/components/responses/{_error_name(status)}"} for status in _errors(operation)}
    described["responses"] = {**{str(answer.status): _answer(answer) for answer in operation.answers}, **errors}
    if operation.writes or operation.private:
        described["security"] = [{}, {"apiKey": []}]
    return described


def _errors(operation: Operation) -> list[int]:
    has_body = operation.request is not None or operation.form is not None
    counted = kind_of(operation.method.upper(), operation.path) is not None
    return sorted({*operation.errors, 403, 500, *([408] if has_body else []), *([429] if counted else [])})


def _request_content(operation: Operation) -> Json:
    content: Json = {}
    if operation.request is not None:
        content["application/json"] = {"schema": _reference(operation.request)}
        if operation.examples:
            content["application/json"]["examples"] = {name: {"value": value} for name, value in operation.examples}
    if operation.form is not None:
        content["multipart/form-data"] = {"schema": operation.form}
    return content


def _answer(answer: Answer) -> Json:
    described: Json = {"description": answer.description}
    if answer.media_types:
        described["content"] = {media_type: {} for media_type in answer.media_types}
    elif answer.model is not None:
        described["content"] = {"application/json": {"schema": _reference(answer.model)}}
    return described


def _error(status: int) -> Json:
    described: Json = {"description": _MEANING[status], "content": {PROBLEM_JSON: {"schema": _reference(Problem)}}}
    if status in {429, 503, 507}:
        described["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    return described


def _error_name(status: int) -> str:
    return HTTPStatus(status).name.title().replace("_", "")


def _reference(model: type[BaseModel]) -> dict[str, Any]:
    return {"$ref": SCHEMAS + model.__name__}


if __name__ == "__main__":
    sys.stdout.write(document_json())
