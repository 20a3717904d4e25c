"""Every error of every route has the one shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import ClientResponse

from core.errors import CatalogUnavailable, ModelUnavailable, VectorsUnavailable
from searchsvc import openapi
from searchsvc.operations import OPERATIONS, Operation
from tests.fakes import FakeVectorStore
from tests.unit.searchsvc.conftest import MakeWorld, World

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
PATHS = sorted({operation.path for operation in OPERATIONS})
WITH_ID = [operation for operation in OPERATIONS if "{image_id}" in operation.path]
WITH_BODY = [operation for operation in OPERATIONS if operation.method == "post"]


def _name(operation: Operation) -> str:
    return operation.name


def _filled(operation: Operation | str, image_id: str = "0" * 64) -> str:
    path = operation if isinstance(operation, str) else operation.path
    return path.format(image_id=image_id, n=0)


async def _is_problem(answer: ClientResponse, *statuses: int) -> dict[str, Any]:
    text = await answer.text()
    assert answer.status in statuses, text
    assert answer.content_type == "application/problem+json"
    document: dict[str, Any] = json.loads(text)
    assert {"type", "title", "status", "detail", "code", "request_id"} <= document.keys()
    assert document["status"] == answer.status
    assert document["request_id"] == answer.headers["X-Request-ID"]
    assert document["detail"]
    for secret in ("Traceback", "pytest-of", ".py", "site-packages"):
        assert secret not in text
    return document


@pytest.mark.parametrize("path", PATHS)
async def test_a_method_that_the_address_does_not_know_is_405_with_those_it_does(world: World, path: str) -> None:
    known = {operation.method.upper() for operation in OPERATIONS if operation.path == path}
    for method in set(METHODS) - known:
        answer = await world.client.request(method, _filled(path))
        await _is_problem(answer, 405)
        assert known <= set(answer.headers["Allow"].split(","))


async def test_an_address_that_is_none_is_404(world: World) -> None:
    for path in (
        "/nothing",
        "/api",
        "/api/v1",
        "/api/v2/search-image",
        "/api/v1/search-image/",
        "/%ff",
        "/api/v1/images/",
        "/docs/files/x",
    ):
        await _is_problem(await world.client.get(path), 404)


@pytest.mark.parametrize("operation", WITH_ID, ids=_name)
@pytest.mark.parametrize("image_id", ["0" * 64, "x", "A" * 64])
async def test_an_unknown_or_impossible_id_is_404(world: World, operation: Operation, image_id: str) -> None:
    body: dict[str, Any] = {"json": {"mode": "quick"}} if operation.method == "post" else {}
    answer = await world.client.request(operation.method.upper(), _filled(operation, image_id), **body)
    await _is_problem(answer, 404)


@pytest.mark.parametrize("operation", WITH_BODY, ids=_name)
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"{}", "application/json; charset=nonsense"),
        (b"[1]", "application/json"),
        (b"{}", "text/plain"),
        (b"{}", "nonsense"),
        (b"", "application/octet-stream"),
        (b"rubbish", "multipart/form-data; boundary=x"),
        (b"rubbish", "multipart/form-data"),
        (b"--x\r\nrubbish\r\n\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nx\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (
            b"--x\r\nContent-Disposition: form-data; name=file\r\nContent-Transfer-Encoding: base64\r\n\r\n?\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
        (b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=text\r\n\r\n\xff\xfe\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data; name=text\r\n\r\nnever ends", "multipart/form-data; boundary=x"),
    ],
)  # fmt: skip
async def test_a_body_that_cannot_be_read_is_a_client_error(
    world: World, operation: Operation, body: bytes, content_type: str
) -> None:
    answer = await world.client.post(_filled(operation), data=body, headers={"Content-Type": content_type})
    document = await _is_problem(answer, 400, 404, 415, 422)
    assert document["code"] in {"bad_request", "unsupported_media_type", "unprocessable_entity", "not_an_image", "not_found"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=_name)
async def test_errors_that_occur_are_documented(make_world: MakeWorld, operation: Operation) -> None:
    """With everything away, each route answers as documented: well, or with a 503 that says when to come back."""
    world = await make_world()
    world.catalog.away = CatalogUnavailable("the watcher does not answer")
    world.vectors.away = VectorsUnavailable("Qdrant does not answer")
    world.embedder.away = ModelUnavailable("the model service does not answer")
    if operation.name == "streamStatus":
        pytest.skip("an endless answer that tells it itself: see test_operations")
    body: dict[str, Any] = {"json": dict(operation.examples[0][1])} if operation.examples else {}
    answer = await world.client.request(operation.method.upper(), _filled(operation), **body)
    documented = openapi.document()["paths"][operation.path][operation.method]["responses"]
    assert str(answer.status) in documented
    if answer.status == 503:
        await _is_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) >= 1


async def test_a_fault_of_ours_is_500_and_tells_nothing(world: World) -> None:
    class Broken(FakeVectorStore):
        async def query(self, *_: Any, **__: Any) -> Any:
            raise RuntimeError("secret /tmp/path.py")

    world.vectors.__class__ = Broken
    answer = await world.client.post("/api/v1/search-image", json={"text": "red"})
    document = await _is_problem(answer, 500)
    assert document["code"] == "internal_server_error"


async def test_a_wrong_page_of_another_site_cannot_read_answers(world: World) -> None:
    answer = await world.client.get("/api/v1/status", headers={"Origin": "https://elsewhere.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers
