"""Services as processes of their own, each for the time of a `with`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.ports import free_port


@contextmanager
def model_service(models_dir: Path, profile: str, **settings: str) -> Iterator[str]:
    """Its address, once the models are loaded."""
    port = free_port()
    environment = {"MODELS_DIR": str(models_dir), "MODEL_PROFILE": profile, "MODEL_PORT": str(port), "LOG_LEVEL": "warning"}
    with _process("-m", "model_service", environment={**environment, "PORT": str(port), **settings}) as process:
        address = f"http://127.0.0.1:{port}"
        _until_ready(address, process)
        yield address


@contextmanager
def search_service(data_dir: Path, model_url: str) -> Iterator[str]:
    with _process("-m", "benchmarks.search_server", str(data_dir), model_url, environment={}) as process:
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        address = process.stdout.readline().decode().strip()
        _until_ready(address, process, path="/health/live")
        yield address


@contextmanager
def _process(*arguments: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(  # noqa: S603 - modules of this repository
        [sys.executable, *arguments], env={**os.environ, **environment}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=30)


def _until_ready(address: str, process: subprocess.Popen[bytes], *, path: str = "/health/ready", timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(address + path, timeout=5, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{process.args} is not ready, exit {process.poll()}")
