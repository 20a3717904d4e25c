"""A backfill into the real product: killed and gone on with, and overtaken by a single new picture."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.product import REPOSITORY, Product, wait_for

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PICTURES = 80


def test_a_single_picture_overtakes_a_backfill_that_is_killed_and_goes_on(product: Product, tmp_path: Path) -> None:
    archive, state = tmp_path / "archive", tmp_path / "journal"
    archive.mkdir()
    for n in range(PICTURES):
        (archive / f"{n}.jpg").write_bytes(synthetic_picture("red", "circle", 256, seed=n))
    (archive / "broken.jpg").write_bytes(synthetic_picture("red", "circle", 256, seed=9999)[:900])
    product.environment["INGEST_CONCURRENCY"] = "1"
    product.start_and_wait()
    command = [sys.executable, "-m", "imagesearch", "backfill", str(archive), "--state", str(state)]
    command += ["--url", f"http://127.0.0.1:{product.port}"]
    first = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("some are there", lambda: product.status()["images"]["pending"] > 20, timeout_s=120, every_s=0.01)
    first.kill()
    first.wait(20)

    new = synthetic_picture("blue", "square", 256, seed=5000)
    (product.images / "new.jpg").write_bytes(new)
    address = f"/api/v1/images/{hashlib.sha256(new).hexdigest()}"

    def indexed() -> bool:
        answer = product.http.get(address)
        return answer.status_code == 200 and answer.json()["state"] == "indexed"

    wait_for("the new one is indexed", indexed, timeout_s=120, every_s=0.01)
    assert product.status()["images"]["pending"] > 0, "it waited for all that came before"

    second = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=False)
    report = json.loads((state / "report.json").read_text())
    assert second.returncode == 1, second.stderr
    assert (report["indexed"], report["reasons"], report["left"]) == (PICTURES, {"truncated": 1}, {})
    product.wait_until_indexed(PICTURES + 1)
    written = [event["image_id"] for event in product.log_events() if event["event"] == "upload_written"]
    assert len(written) == len(set(written))
    assert len(list((product.images / "archive").iterdir())) == PICTURES, "each lies there once"

    keys = tmp_path / "keys.csv"
    (product.images / "lies there.jpg").write_bytes(synthetic_picture("green", "circle", 256, seed=1))
    keys.write_text("key\nlies there.jpg\nnew.jpg\n")
    followed = [*command[:4], str(keys), *command[-2:]]
    assert subprocess.run(followed, cwd=REPOSITORY, capture_output=True, timeout=300, check=False).returncode == 0
    product.wait_until_indexed(PICTURES + 2)
