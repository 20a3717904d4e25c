"""Status, failures, health, events, pages: what operators and the page look at."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from core.errors import CatalogUnavailable, ModelUnavailable, Reason, VectorsUnavailable
from core.schemas import EngineState, Failure
from searchsvc.app import create_app
from searchsvc.settings import SearchSettings
from tests.fakes import READY, FakeCatalog, FakeEmbedder, FakeVectorStore, picture
from tests.unit.searchsvc.conftest import MakeWorld, World


async def _get(world: World, path: str, **options: Any) -> tuple[int, dict[str, Any]]:
    answer = await world.client.get(path, **options)
    return answer.status, json.loads(await answer.text())


async def test_the_status_has_counts_models_and_the_watcher(world: World) -> None:
    await world.add(picture("red"), "red.png")
    status, document = await _get(world, "/api/v1/status")
    assert status == 200
    assert document["images"] == {"pending": 0, "running": 0, "indexed": 1, "failed": 0}
    assert document["segments"] == 1
    assert document["rate_per_s"] == 0.0
    assert [card["model_name"] for card in document["models"]] == ["CLIP"]
    assert [space["model_name"] for space in document["spaces"]] == ["CLIP", "ResNet"]
    assert document["watcher"]["state"] == "watching"
    assert document["profile"] == "clip"
    assert document["writing_needs_key"] is False


async def test_the_status_is_answered_without_the_model_service_and_says_so(world: World) -> None:
    world.embedder.away = ModelUnavailable("the model service does not answer")
    status, document = await _get(world, "/api/v1/status")
    assert status == 200
    assert document["models"] == []
    assert document["model_state"] == "unavailable"
    assert document["notice"] == "the model service does not answer"


async def test_the_status_is_503_without_the_watcher(world: World) -> None:
    world.catalog.away = CatalogUnavailable("the watcher does not answer")
    assert (await _get(world, "/api/v1/status"))[0] == 503


async def test_each_failure_is_told_with_its_reason(world: World) -> None:
    at = datetime(2024, 1, 1, tzinfo=UTC)
    for n, reason in enumerate((Reason.TRUNCATED, Reason.NOT_AN_IMAGE, Reason.IGNORED)):
        world.catalog.failed.append(Failure(path=f"{n}.jpg", reason=reason, failed_at=at))
    _, document = await _get(world, "/api/v1/failures")
    assert [failure["reason"] for failure in document["failures"]] == ["truncated", "not_an_image"]
    assert document["total"] == 2
    _, document = await _get(world, "/api/v1/failures?limit=1&offset=1&ignored=true")
    assert ([failure["path"] for failure in document["failures"]], document["total"]) == (["1.jpg"], 3)


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=1001", "limit"), ("limit=x", "limit"), ("limit=1.0", "limit"), ("limit=", "limit"),
     ("limit=%D9%A1", "limit"), ("offset=-1", "offset"), ("ignored=maybe", "ignored")],
)  # fmt: skip
async def test_failures_are_paged_by_numbers_only(world: World, query: str, field: str) -> None:
    status, problem = await _get(world, f"/api/v1/failures?{query}")
    assert (status, problem["errors"][0]["field"]) == (422, field)


async def test_ready_means_that_a_search_would_be_answered(world: World) -> None:
    assert (await _get(world, "/health/ready"))[0] == 200
    for part, error in (
        (world.embedder, ModelUnavailable("no model service")),
        (world.vectors, VectorsUnavailable("no Qdrant")),
        (world.catalog, CatalogUnavailable("no watcher")),
    ):
        part.away = error
        status, problem = await _get(world, "/health/ready")
        assert (status, problem["code"]) == (503, "not_ready")
        assert str(error) in problem["detail"]
        assert list(problem["checks"].values()).count("ok") == 3
        assert (await _get(world, "/health"))[1]["status"] == "unavailable"
        assert (await _get(world, "/health/live"))[0] == 200
        part.away = None


@pytest.mark.parametrize("state", [EngineState.LOADING, EngineState.NO_MODEL])
async def test_without_loaded_models_it_is_alive_and_not_ready(world: World, state: EngineState) -> None:
    world.embedder.models = READY.model_copy(update={"state": state, "spaces": ()})
    assert (await _get(world, "/health/ready"))[0] == 503
    assert (await _get(world, "/health/live"))[0] == 200


async def test_ingestion_that_waits_is_degraded_and_says_for_what_while_searches_go_on(world: World) -> None:
    world.catalog.waiting_for = "the broker does not answer now"
    health = await (await world.client.get("/health")).json()
    assert (health["status"], health["checks"]["ingestion"]) == ("degraded", "the broker does not answer now")
    assert (await world.client.get("/health/ready")).status == 200


async def test_health_says_a_fallback_the_devices_and_the_size_of_the_corpus(world: World) -> None:
    await world.add(picture("red"), "red.png")
    world.embedder.models = READY.model_copy(update={"notice": "the starter model is in use"})
    status, document = await _get(world, "/health")
    assert status == 200
    assert document["notice"] == "the starter model is in use"
    assert document["devices"] == ["cpu"]
    assert document["images_indexed"] == 1


async def test_metrics_count_requests_and_time_the_stages_of_a_search(world: World) -> None:
    await world.search(text="red")
    text = await (await world.client.get("/metrics")).text()
    assert 'route="/api/v1/search-image",service="searchsvc",status="200"} 1.0' in text
    for stage in ("embed", "vectors", "render"):
        assert f'search_stage_seconds_count{{stage="{stage}"}} 1.0' in text


async def test_metrics_count_what_the_caches_save_and_what_people_think(world: World) -> None:
    image_id = await world.add(picture("red"), "red.png")
    for _ in range(3):
        assert (await world.client.get(f"/api/v1/images/{image_id}/thumbnail")).status == 200
        found = await world.search(text="red")
    ratings = ((found["jwt"], 4), (found["matches"][0]["jwt"], 9), (found["jwt"], 10))
    for token, rating in ratings:
        await world.client.post("/api/v1/create-feedback", json={"user_feedback": rating, "jwt": token})
    text = await (await world.client.get("/metrics")).text()
    for cache in ("thumbnails", "text_embeddings"):
        assert f'cache_lookups_total{{cache="{cache}",result="miss"}} 1.0' in text
        assert f'cache_lookups_total{{cache="{cache}",result="hit"}} 2.0' in text
    assert 'feedback_rating_sum{about="search"} 4.0' in text
    assert 'feedback_rating_bucket{about="image",le="8.0"} 0.0' in text
    assert 'feedback_rating_bucket{about="image",le="9.0"} 1.0' in text
    assert 'feedback_rating_count{about="image"} 1.0' in text


async def _event(answer: Any) -> tuple[str, dict[str, Any]]:
    kind = (await answer.content.readline()).decode().removeprefix("event: ").strip()
    data = (await answer.content.readline()).decode().removeprefix("data: ")
    await answer.content.readline()
    return kind, json.loads(data)


async def test_events_tell_the_status_at_once_and_when_it_changes(world: World) -> None:
    async with world.client.get("/api/v1/events") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        kind, document = await _event(answer)
        assert (kind, document["images"]["indexed"]) == ("status", 0)
        await world.add(picture("red"), "red.png")
        kind, document = await asyncio.wait_for(_event(answer), 5)
        assert document["images"]["indexed"] == 1
        world.catalog.away = CatalogUnavailable("away")
        kind, _ = await asyncio.wait_for(_event(answer), 5)
        assert kind == "unavailable"


async def test_more_listeners_than_allowed_are_refused_and_a_place_that_is_left_is_free_again(make_world: MakeWorld) -> None:
    world = await make_world(max_event_streams=1)
    first = await world.client.get("/api/v1/events")
    await _event(first)
    assert (await world.client.get("/api/v1/events")).status == 503
    first.close()
    for _ in range(60):
        again = await world.client.get("/api/v1/events")
        if again.status == 200:
            break
        await asyncio.sleep(0.05)
    assert again.status == 200
    again.close()


async def test_listeners_do_not_hold_up_the_end(tmp_path: Path) -> None:
    settings = SearchSettings(images_dir=tmp_path, data_dir=tmp_path / "state")
    app = create_app(settings, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog())
    async with TestClient(TestServer(app)) as client:
        answer = await client.get("/api/v1/events")
        await _event(answer)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await client.server.close()
        assert loop.time() - started < 3
        assert await answer.content.read() == b""


# --- pages


async def test_the_page_and_its_files_are_served_by_the_package_itself(world: World) -> None:
    answer = await world.client.get("/")
    text = await answer.text()
    assert answer.content_type == "text/html"
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "<html" in text
    script = await world.client.get("/static/main.js")
    assert script.status == 200
    assert script.content_type == "text/javascript"
    held = await world.client.get("/static/main.js", headers={"If-None-Match": script.headers["ETag"]})
    assert held.status == 304


@pytest.mark.parametrize("name", ["../app.py", "..%2fapp.py", "%2e%2e/settings.py", "nothing.js", "", "/etc/passwd"])
async def test_no_other_file_is_served(world: World, name: str) -> None:
    from yarl import URL

    answer = await world.client.get(URL(f"/static/{name}", encoded=True))
    assert answer.status == 404
    assert answer.content_type == "application/problem+json"


async def test_without_the_page_the_api_still_works(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from aiohttp import web

    from searchsvc.routes import pages

    app = web.Application()
    with ThreadPoolExecutor(1) as pool:
        app.add_routes(pages.routes("{}", executor=pool, page=tmp_path / "missing"))
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/openapi.json")).status == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documents_load_nothing_from_elsewhere(world: World, path: str) -> None:
    import re

    answer = await world.client.get(path)
    text = await answer.text()
    assert "https://" not in text
    assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
    files = re.findall(r'(?:src|href|spec-url)="(/[^"]+)"', text)
    assert files
    for file in files:
        assert (await world.client.get(file)).status == 200


async def test_every_answer_carries_the_security_headers_and_a_request_id(world: World) -> None:
    for path in ("/", "/docs", "/api/v1/status", "/nothing", "/api/v1/images/x", "/static/main.js", "/metrics"):
        answer = await world.client.get(path, headers={"X-Request-ID": "my-id"})
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert "Content-Security-Policy" in answer.headers
        assert answer.headers["X-Request-ID"] == "my-id"
