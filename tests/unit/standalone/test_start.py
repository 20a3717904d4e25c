"""What stands in the way of a start is said in words, by the variable that is to be changed."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.e2e.product import PYTHON_STANDALONE, REPOSITORY, wait_for
from tests.ports import free_port


def started(
    root: Path,
    *,
    python_path: Path | None = None,
    stdout: int = subprocess.PIPE,
    stderr: int = subprocess.STDOUT,
    **environment: str,
) -> subprocess.Popen[str]:
    """The product with folders of its own, and what it says in one pipe if not told otherwise."""
    own = {
        "IMAGES_DIR": str(root / "images"),
        "DATA_DIR": str(root / "data"),
        "PORT": "0",
        "MODEL_PORT": "0",
        "WATCHER_PORT": "0",
    }
    path = {"PYTHONPATH": str(python_path)} if python_path else {}
    return subprocess.Popen(
        ("env", "--default-signal=INT", *PYTHON_STANDALONE),  # as at a terminal: what runs in the background has it ignored
        cwd=REPOSITORY,
        env={**os.environ, "MODEL_PROFILE": "starter", **own, **path, **environment},
        stdout=stdout,
        stderr=stderr,
        text=True,
    )


def refused(root: Path, **environment: str) -> str:
    """What it says before it ends by itself, with exit code 1."""
    process = started(root, **environment)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 1, said
    return said


@pytest.mark.parametrize(
    ("variable", "value"), [("PORT", "many"), ("MODEL_RUNTIME", "abacus"), ("SETTLE_S", "-1"), ("RETRY_MIN_S", "soon")]
)
def test_a_value_that_cannot_be_is_told_by_its_variable_and_nothing_starts(tmp_path: Path, variable: str, value: str) -> None:
    said = refused(tmp_path, **{variable: value})
    assert f"\n  {variable}: Input should be " in said
    assert "model_service_started" not in said
    assert "pydantic" not in said


@pytest.mark.parametrize("data_dir", ["images", "images/state"])
def test_state_in_the_watched_folder_is_refused_as_its_thumbnails_would_be_taken_for_pictures(
    tmp_path: Path, data_dir: str
) -> None:
    assert "\n  DATA_DIR lies in the watched folder" in refused(tmp_path, DATA_DIR=str(tmp_path / data_dir))


def test_it_drains_and_ends_with_0_also_where_nobody_reads_what_it_says_any_more(tmp_path: Path) -> None:
    port, (reading, writing) = free_port(), os.pipe()
    os.close(reading)
    with started(tmp_path, stdout=writing, stderr=subprocess.PIPE, PORT=str(port)) as process:
        os.close(writing)
        try:
            wait_for("the page is there", lambda: _listens(port), timeout_s=90)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, said
    assert "standalone_stopped" in said
    assert "Broken pipe" not in said


def _listens(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/health/live", trust_env=False, timeout=5).status_code == 200
    return False


def test_ctrl_c_while_it_imports_from_a_slow_disk_ends_it(tmp_path: Path) -> None:
    (tmp_path / "qdrant_edge.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('begun').touch()\ntime.sleep(600)\n"
    )
    with started(tmp_path, python_path=tmp_path) as process:
        try:
            wait_for("the imports have begun", (tmp_path / "begun").exists, timeout_s=60)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130, said
    assert said.endswith("Stopped before it had started\n")
