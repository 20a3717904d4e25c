"""Pictures that crash, hang or bloat a decoder, in the real product: they fail with their reasons, and nothing else notices."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.product import REPOSITORY, Product, wait_for
from tests.faulty_decoding import faulty

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_DECODING = "core.decoding_process"

_HOOK = f"""
import sys
if {_DECODING!r} in sys.orig_argv:
    import core.decode
    from tests import faulty_decoding
    core.decode.upright = faulty_decoding.upright_or_worse
"""
"""A `sitecustomize`: in the decoding processes, and nowhere else, decoders get faults."""

REASONS = {
    "segfault": "crashes_decoder",
    "abort": "crashes_decoder",
    "kill": "crashes_decoder",
    "eat and crash": "crashes_decoder",
    "no JSON": "crashes_decoder",
    "spin": "too_slow",
    "eat": "too_many_pixels",
}


@pytest.fixture
def product(tmp_path: Path) -> Iterator[Product]:
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(_HOOK)
    environment = {
        "MODEL_PROFILE": "starter",
        "PYTHONPATH": f"{hook}{os.pathsep}{REPOSITORY}",
        "DECODE_TIMEOUT_S": "1",
        "TRUNCATED_AFTER_S": "1",
        "DECODE_MEMORY_BYTES": str(2**28),
    }
    with Product(tmp_path, models_dir=tmp_path / "models", environment=environment) as instance:
        yield instance


def _picture(number: int) -> bytes:
    return synthetic_picture(("red", "green", "blue")[number % 3], "circle", 200, seed=number)


def _decoders(product: Product) -> list[psutil.Process]:
    assert product.process is not None
    found = []
    for child in psutil.Process(product.process.pid).children(recursive=True):
        try:
            if _DECODING in child.cmdline():
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


def _indexed(product: Product) -> int:
    return int(product.status()["images"]["indexed"])


def test_poison_fails_with_its_reason_and_every_other_picture_is_indexed(product: Product) -> None:
    for number in range(30):
        (product.images / f"{number}.jpg").write_bytes(_picture(number))
    for number, fault in enumerate(REASONS):
        (product.images / f"{fault}.jpg").write_bytes(faulty(_picture(100 + number), fault))
    product.start_and_wait()
    product.wait_until_indexed(30, failed=len(REASONS))
    listed = product.http.get("/api/v1/failures", params={"limit": 100}).json()["failures"]
    assert {Path(one["path"]).stem: one["reason"] for one in listed} == REASONS

    assert product.search("a red circle")["matches"]
    files = {"file": ("q.jpg", faulty(_picture(0), "segfault"), "image/jpeg")}
    asked = product.http.post("/api/v1/search-image", files=files)
    assert (asked.status_code, asked.json()["code"]) == (422, "crashes_decoder")
    sent = product.http.post("/api/v1/images", files=files)
    assert (sent.status_code, sent.json()["code"]) == (422, "crashes_decoder")
    for one in listed:
        assert product.http.get(f"/api/v1/images/{one['image_id']}/thumbnail").status_code == 404
    indexed = product.search("a red circle")["matches"][0]
    assert product.http.get(indexed["thumbnail_url"]).status_code == 200
    assert not [event for event in product.log_events() if event["event"] == "model_service_died"]
    assert product.interrupt() == 0


@pytest.mark.parametrize("kills", [8, pytest.param(300, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_kill_9_of_decoding_processes_while_pictures_are_ingested_costs_none(product: Product, kills: int) -> None:
    seed = int(os.environ.get("DECODE_SEED", str(random.randrange(2**32))))
    print(f"DECODE_SEED={seed}")
    rng = random.Random(seed)
    product.start_and_wait()
    written = killed = 0
    while killed < kills:
        for _ in range(20):
            (product.images / f"{written}.jpg").write_bytes(_picture(written))
            written += 1
        wait_for("at work", lambda most=written: _indexed(product) > most - 40, timeout_s=60)
        time.sleep(rng.uniform(0.0, 0.5))
        for decoder in _decoders(product):
            decoder.kill()
            killed += 1
    product.wait_until_indexed(written)
    decoders = _decoders(product)
    assert product.interrupt() == 0
    assert not psutil.wait_procs(decoders, timeout=5)[1]


def test_nothing_decodes_on_when_the_product_is_killed(product: Product) -> None:
    product.environment["DECODE_TIMEOUT_S"] = "5"
    (product.images / "spin.jpg").write_bytes(faulty(_picture(0), "spin"))
    product.start_and_wait()
    decoders = wait_for("decoding", lambda: _decoders(product), timeout_s=30)
    product.kill()
    _, alive = psutil.wait_procs(decoders, timeout=20)
    assert not [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
