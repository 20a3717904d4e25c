"""`make run LEAN=1` as it is: an environment with the base dependencies alone, the starter, and answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.checkpoints import synthetic_picture
from tests.e2e.product import REPOSITORY, Product

_UV = Path(sys.executable).parent / "uv"


@pytest.fixture
def lean_python(tmp_path: Path) -> str:
    """Of an environment made from what `make build` left in uv's cache."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    if not _UV.exists():
        pytest.skip("uv is not in this environment; `make build` puts it there")
    requirements = ["--require-hashes", "-r", "pyproject.toml", "--constraint", "requirements.lock"]
    command = [str(_UV), "pip", "install", "--offline", "--python", str(environment / "bin" / "python"), *requirements]
    installed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if installed.returncode != 0:
        pytest.skip(f"uv's cache does not hold every wheel of the base dependencies: {installed.stderr[-300:]}")
    return str(environment / "bin" / "python")


@pytest.mark.e2e
def test_an_environment_without_torch_finds_pictures_by_words_and_by_a_picture(tmp_path: Path, lean_python: str) -> None:
    listed = subprocess.run([str(_UV), "pip", "list", "--python", lean_python], capture_output=True, text=True, check=True).stdout
    assert "onnxruntime" in listed
    assert not {"torch", "transformers", "ultralytics", "scipy"} & {line.split()[0] for line in listed.splitlines()}
    picture = synthetic_picture("red", "circle", 256, seed=1)
    with Product(tmp_path, models_dir=tmp_path / "models", environment={"MODEL_PROFILE": "auto"}) as product:
        (product.images / "circle.jpg").write_bytes(picture)
        product.start_and_wait((lean_python, "-m", "standalone"))
        product.wait_until_indexed(1)
        assert product.search("a red circle")["matches"][0]["image_name"] == "circle.jpg"
        assert product.search_by_picture(picture)["matches"][0]["score"] == pytest.approx(1, abs=1e-3)
        health = product.http.get("/health").json()
        assert (health["profile"], health["status"]) == ("starter", "ok")
        assert "pip install '.[model]'" in health["notice"]
        assert product.interrupt() == 0
        assert "Traceback" not in product.log_tail()
