"""Two real models, one installation: the pictures are indexed for the second while the first answers, whatever happens meanwhile."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_service.registry import STARTER
from tests.checkpoints import COLOURS, SHAPES, synthetic_picture
from tests.e2e.product import Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

PICTURES = 60
LATE = 4
ENVIRONMENT = {"INGEST_CONCURRENCY": "2", "SEGMENTER": "none"}


@pytest.fixture
def two_models(tmp_path: Path) -> Path:
    """A MODELS_DIR with profiles `one` and `two`: the starter's graphs, which the second shows pictures in another light."""
    folder = tmp_path / "models"
    described = json.loads((STARTER / "embedder.json").read_text())
    for name, changes in {"one": {}, "two": {"resize": "squash", "mean": [0.3, 0.3, 0.3]}}.items():
        (folder / name).mkdir(parents=True)
        for path in STARTER.glob("*.*"):
            (folder / name / path.name).symlink_to(path)
        (folder / name / "embedder.json").unlink()
        (folder / name / "profile.toml").unlink()
        description = {**described, "name": f"Model {name}", "image": {**described["image"], **changes}}
        (folder / name / "embedder.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def product(tmp_path: Path, two_models: Path) -> Iterator[Product]:
    with Product(
        tmp_path / "house", models_dir=two_models, environment={"MODEL_PROFILE": "one", "INGEST_CONCURRENCY": "2"}
    ) as one:
        for number in range(PICTURES):
            _draw(one, number)
        yield one


def _draw(product: Product, number: int) -> None:
    colour, shape = list(COLOURS)[number % len(COLOURS)], SHAPES[number % len(SHAPES)]
    (product.images / f"{number}.jpg").write_bytes(synthetic_picture(colour, shape, 240, seed=number))


@dataclass
class Asker:
    """Asks all the time, and remembers what was answered: the model, and how many pictures it found."""

    product: Product
    answers: list[tuple[str, int]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def ask(self, stopping: threading.Event) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{self.product.port}", timeout=30.0, trust_env=False) as http:
            while not stopping.is_set():
                answer = http.post("/api/v1/search-image", json={"text": "a red circle", "top_k": 100})
                if answer.status_code != 200:
                    self.refused.append(answer.text)
                    continue
                found = answer.json()
                self.answers.append((found["model_name"], len(found["matches"])))


@contextmanager
def asking(product: Product) -> Iterator[Asker]:
    asker, stopping = Asker(product), threading.Event()
    thread = threading.Thread(target=asker.ask, args=(stopping,))
    thread.start()
    try:
        yield asker
    finally:
        stopping.set()
        thread.join()


def _models(product: Product, action: str | None = None) -> dict[str, Any]:
    path = "/api/v1/models"
    answer = product.http.get(path) if action is None else product.http.post(path, json={"action": action})
    assert answer.status_code == 200, answer.text
    course: dict[str, Any] = answer.json()
    return course


def _answered_by(product: Product, profile: str) -> None:
    def is_so() -> bool:
        course = _models(product)
        return course["profile"] == profile and course["change"] is None

    wait_for(f"{profile} answers", is_so, timeout_s=90, every_s=0.02)


def _analysed(product: Product) -> int:
    """Pictures that a model was asked about, over all starts."""
    return sum(1 for event in product.log_events() if event["event"] == "image_indexed" and not event["adopted"])


def _results(product: Product) -> list[tuple[str, float]]:
    """Of several questions; scores of equal vectors are equal but for the order of additions."""
    matches = [match for text in ("a red circle", "a blue square") for match in product.search(text, top_k=100)["matches"]]
    return [(match["image_name"], round(match["score"], 4)) for match in matches]


def _restart_with(product: Product, profile: str) -> None:
    assert product.interrupt() == 0
    product.environment["MODEL_PROFILE"] = profile
    product.start_and_wait()


def test_another_model_takes_over_at_once_while_somebody_asks_all_the_time(product: Product, tmp_path: Path) -> None:
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    before = product.search("a red circle", top_k=5)
    _restart_with(product, "two")

    with asking(product) as asker:
        for number in range(PICTURES, PICTURES + LATE):
            _draw(product, number)
        product.wait_until_indexed(PICTURES + LATE)
        found_late = {match["image_name"] for match in product.search("a shape", top_k=100)["matches"]}
        _answered_by(product, "two")
        wait_for("an answer of it", lambda: asker.answers[-1][0] == "Model two", timeout_s=10)

    assert asker.refused == []
    assert {f"{number}.jpg" for number in range(PICTURES, PICTURES + LATE)} <= found_late
    models = [model for model, _ in asker.answers]
    assert models == sorted(models), "the first model answered again after the second took over"
    assert Counter(models).keys() == {"Model one", "Model two"}
    assert {count for _, count in asker.answers} <= set(range(PICTURES, PICTURES + LATE + 1)), "an answer was half-filled"
    assert asker.answers[-1][1] == PICTURES + LATE

    stale = product.http.post("/api/v1/search-image", json={"cursor": before["cursor"]})
    assert (stale.status_code, stale.json()["code"]) == (409, "conflict")
    rated = product.http.post("/api/v1/create-feedback", json={"user_feedback": 9, "jwt": before["jwt"]})
    assert rated.status_code == 201

    fresh = Product(
        tmp_path / "fresh",
        models_dir=Path(product.environment["MODELS_DIR"]),
        environment={**ENVIRONMENT, "MODEL_PROFILE": "two"},
    )
    with fresh:
        shutil.copytree(product.images, fresh.images, dirs_exist_ok=True)
        fresh.start_and_wait()
        fresh.wait_until_indexed(PICTURES + LATE)
        assert sorted(_results(fresh)) == sorted(_results(product))


def test_a_change_survives_a_kill_and_can_be_stopped_resumed_and_reverted(product: Product) -> None:
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    by_one = sorted(_results(product))
    _restart_with(product, "two")
    stopped = _stopped_midway(product)
    assert 0 < stopped["done"] < PICTURES

    product.kill()
    product.start_and_wait()
    again = _models(product)
    assert (again["profile"], again["change"]["stopped"]) == ("one", True)
    assert again["change"]["done"] >= stopped["done"]
    assert sorted(_results(product)) == by_one
    _models(product, "resume")
    _answered_by(product, "two")
    made = _analysed(product)
    in_flight = int(product.environment["INGEST_CONCURRENCY"])
    assert abs(made - 2 * PICTURES) <= in_flight, (
        "what was done before the kill was done again"
    )  # less: killed before it was told

    assert _models(product)["previous"] == "one"
    _models(product, "revert")
    _answered_by(product, "one")
    assert sorted(_results(product)) == by_one
    _restart_with(product, "two")
    assert _models(product)["profile"] == "one", "a revert holds over a restart"
    product.wait_until_indexed(PICTURES)
    assert _analysed(product) == made, "the way back costs no inference"


def _stopped_midway(product: Product) -> dict[str, Any]:
    def begun() -> bool:
        change = _models(product)["change"]
        return change is not None and change["done"] > 0

    wait_for("the change has begun", begun, timeout_s=60, every_s=0.01)
    change: dict[str, Any] = _models(product, "stop")["change"]
    return change


def test_weights_replaced_under_their_name_are_noticed_and_never_mixed_with_those_before(
    product: Product, two_models: Path
) -> None:
    product.start_and_wait()
    product.wait_until_indexed(PICTURES)
    one = _models(product)["searched"]
    graph = two_models / "one" / "image.onnx"
    content = graph.read_bytes()
    graph.unlink()
    graph.write_bytes(content + b"\x32\x01x")  # another `doc_string`: the least that another training would change
    _restart_with(product, "one")

    _answered_by(product, "one")
    assert _models(product)["searched"] != one
    told = [event for event in product.log_events() if event["event"] == "models_gone"]
    assert "replaced" in told[0]["detail"]
    assert len(product.search("a red circle", top_k=100)["matches"]) == PICTURES
