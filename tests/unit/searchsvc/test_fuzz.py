"""Generated requests against the documented API: no server error, nothing undocumented."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import schemathesis
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks

from searchsvc import openapi
from searchsvc.app import create_app
from searchsvc.operations import OPERATIONS, Operation
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore, index, picture

_CHECK_NAMES = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
_EXAMPLES = 40
_TESTED = [operation for operation in OPERATIONS if operation.name not in {"streamStatus", "getMetrics"}]


@contextmanager
def _serving_in_a_thread(
    app: web.Application, prepare: FakeVectorStore, embedder: FakeEmbedder, catalog: FakeCatalog
) -> Iterator[str]:
    """schemathesis asks synchronously, so the service answers from another thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = TestServer(app, loop=loop)

    async def start() -> str:
        await index(embedder, prepare, catalog, picture("red"), "red.png")
        await server.start_server()
        return str(server.make_url("")).rstrip("/")

    try:
        yield asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    finally:
        asyncio.run_coroutine_threadsafe(server.close(), loop).result(20)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(20)
        loop.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("fuzz")
    (root / "images").mkdir()
    (root / "images" / "red.png").write_bytes(picture("red"))
    embedder, vectors, catalog = FakeEmbedder(), FakeVectorStore(), FakeCatalog()
    chosen = SearchSettings(images_dir=root / "images", data_dir=root / "state", jwt_secret="s" * 40)
    app = create_app(chosen, embedder=embedder, vectors=vectors, catalog=catalog)
    with _serving_in_a_thread(app, vectors, embedder, catalog) as address:
        yield address


@pytest.mark.filterwarnings("default")  # schemathesis and its client warn of themselves
@pytest.mark.parametrize("operation", _TESTED, ids=lambda operation: operation.name)
def test_generated_requests_get_documented_answers(address: str, operation: Operation) -> None:
    load_all_checks()
    wanted = CHECKS.get_by_names(_CHECK_NAMES)
    schema = schemathesis.openapi.from_dict(openapi.document())
    described = schema[operation.path][operation.method.upper()]

    strategy = described.as_strategy(GenerationMode.POSITIVE) | described.as_strategy(GenerationMode.NEGATIVE)

    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=address, checks=wanted, timeout=10)

    ask()
