"""The composed form by hand: watcher, model service and search service as three processes that meet over HTTP and a Qdrant server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.product import REPOSITORY, wait_for
from tests.ports import free_port

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

pytestmark = pytest.mark.e2e


@contextmanager
def _running(module: str, log: Path, environment: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as sink:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=REPOSITORY,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **environment},
            stdout=sink,
            stderr=sink,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def _lines_of(trace_id: str, log: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("trace_id") == trace_id]


def test_three_processes_ingest_search_rate_and_survive_the_loss_of_each_other(tmp_path: Path, weights: Path) -> None:
    ports = {name: free_port() for name in ("qdrant", "model", "watcher", "search")}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    images, state = tmp_path / "images", tmp_path / "state"
    images.mkdir()
    common = {"IMAGES_DIR": str(images), "DATA_DIR": str(state), "QDRANT_URL": urls["qdrant"], "QDRANT_PREFER_GRPC": "false"}
    model = {"PORT": str(ports["model"]), "MODELS_DIR": str(weights), "MODEL_PROFILE": "clip"}
    watcher = {**common, "PORT": str(ports["watcher"]), "MODEL_URL": urls["model"]}
    search = {**common, "PORT": str(ports["search"]), "MODEL_URL": urls["model"], "WATCHER_URL": urls["watcher"]}
    api = httpx.Client(base_url=urls["search"], trust_env=False, timeout=30)

    def state_of(path: str) -> str | None:
        answer = api.get(path)
        return answer.json()["state"] if answer.status_code == 200 else None

    with ExitStack() as stack:
        stack.enter_context(api)
        stack.enter_context(_running("tests.qdrant_rest", tmp_path / "qdrant.log", {}, "--port", str(ports["qdrant"])))
        wait_for("qdrant", lambda: _answers(urls["qdrant"]), timeout_s=30)
        stack.enter_context(_running("watcher", tmp_path / "watcher.log", watcher))
        searching = stack.enter_context(_running("searchsvc", tmp_path / "search.log", search))
        (images / "red.jpg").write_bytes(synthetic_picture("red", "circle", 320, seed=1))
        (images / "blue.jpg").write_bytes(synthetic_picture("blue", "square", 320, seed=2))
        wait_for("search is alive", lambda: _answers(f"{urls['search']}/health/live"), timeout_s=30)
        assert api.get("/health/ready").status_code == 503
        assert api.post("/api/v1/search-image", json={"text": "red"}).status_code == 503

        with _running("model_service", tmp_path / "model.log", model):
            wait_for("search is ready", lambda: _answers(f"{urls['search']}/health/ready"), timeout_s=90)
            wait_for("both indexed", lambda: api.get("/api/v1/status").json()["images"]["indexed"] == 2, timeout_s=60)
            found = api.post("/api/v1/search-image", json={"text": "a red circle", "top_k": 1}).json()
            assert found["matches"][0]["image_name"] == "red.jpg"
            red, traced = f"/api/v1/images/{found['matches'][0]['image_id']}", {"traceparent": TRACEPARENT}
            segmented = api.post(f"{red}/segment", json={"mode": "quick"}, headers=traced)
            assert segmented.status_code == 200, segmented.text
            trace, span = TRACEPARENT.split("-")[1:3]
            for log in ("search", "watcher", "model"):  # each service's span is the child of the one that called it
                (line,) = _lines_of(trace, tmp_path / f"{log}.log")
                assert (line["event"], line["parent_span_id"]) == ("request_answered", span), log
                span = line["span_id"]
            assert span != segmented.headers["traceresponse"].split("-")[2]
            rating = api.post("/api/v1/create-feedback", json={"user_feedback": 10, "jwt": found["jwt"]})
            assert rating.status_code == 201, rating.text

        uploaded = api.post("/api/v1/images", files={"file": ("green.jpg", synthetic_picture("green", "circle", 320, seed=3))})
        assert uploaded.status_code == 202, uploaded.text
        assert state_of(uploaded.json()["status_url"]) in {"pending", "running"}
        with _running("model_service", tmp_path / "model.log", model):
            wait_for("indexed after the outage", lambda: state_of(uploaded.json()["status_url"]) == "indexed", timeout_s=120)
            found = api.post("/api/v1/search-image", json={"text": "a green circle", "top_k": 1}).json()
            assert found["matches"][0]["image_name"] == "green.jpg"

        searching.send_signal(signal.SIGINT)
        assert searching.wait(12) == 0
    assert "Traceback" not in (tmp_path / "search.log").read_text()
    assert "Traceback" not in (tmp_path / "watcher.log").read_text()
