"""The real product as a child process, driven as its user drives it: files, HTTP, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.ports import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
MAKE_RUN = ("make", "--no-print-directory", "run")
PYTHON_STANDALONE = (sys.executable, "-m", "standalone")


def wait_for(what: str, check: Callable[[], Any], *, timeout_s: float, every_s: float = 0.05) -> Any:
    """Poll until `check` returns something true. Raises AssertionError naming `what`, with the last value."""
    deadline = time.monotonic() + timeout_s
    last: Any = None
    while time.monotonic() < deadline:
        last = check()
        if last:
            return last
        time.sleep(every_s)
    raise AssertionError(f"not within {timeout_s:.0f} s: {what}; last seen: {last}")


class Product:
    """One installation: its folders outlive the process, which can be started, killed and started again."""

    def __init__(self, root: Path, *, models_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self.root = root
        self.images = root / "images"
        self.state = root / "state"
        self.log_path = root / "log.jsonl"
        self.images.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.environment = {
            **os.environ,
            "IMAGES_DIR": str(self.images),
            "DATA_DIR": str(self.state),
            "MODELS_DIR": str(models_dir),
            "MODEL_PROFILE": "clip",
            "HF_HUB_OFFLINE": "1",
            "PORT": str(self.port),
            "MODEL_PORT": "0",
            "WATCHER_PORT": "0",
            **(environment or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30.0, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
        self.http.close()

    # --- the process

    def start(self, command: tuple[str, ...] = PYTHON_STANDALONE) -> None:
        """Start it in a process group of its own, as a terminal does."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL, process_group=0
            )

    def start_and_wait(self, command: tuple[str, ...] = PYTHON_STANDALONE, *, timeout_s: float = 90.0) -> None:
        self.start(command)
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(self, *, timeout_s: float = 90.0) -> None:
        try:
            wait_for("ready", self.is_ready, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail()}") from None

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended by itself with {self.process.returncode}:\n{self.log_tail()}"
        try:
            return self.http.get("/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """`kill -9` to the process group, as the out-of-memory killer or a power switch would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def interrupt(self, *, timeout_s: float = 10.0) -> int:
        """Ctrl-C: SIGINT to the foreground process group. Returns the exit code."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(timeout_s)

    def log_tail(self, characters: int = 6000) -> str:
        return self.log_path.read_text(errors="replace")[-characters:] if self.log_path.exists() else ""

    def log_events(self) -> list[dict[str, Any]]:
        lines = self.log_path.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    # --- what a user does

    def search(self, text: str, **options: Any) -> dict[str, Any]:
        answer = self.http.post("/api/v1/search-image", json={"text": text, **options})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def search_by_picture(self, picture: bytes, **options: Any) -> dict[str, Any]:
        fields = {name: str(value) for name, value in options.items()}
        answer = self.http.post("/api/v1/search-image", files={"file": ("query.jpg", picture, "image/jpeg")}, data=fields)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def status(self) -> dict[str, Any]:
        answer = self.http.get("/api/v1/status")
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        return status

    def wait_until_indexed(self, count: int, *, failed: int = 0, timeout_s: float = 120.0) -> dict[str, Any]:
        """Wait until exactly so many images are indexed and failed, and none is on its way."""

        def settled() -> dict[str, Any] | None:
            try:
                status = self.status()
            except httpx.TransportError:
                return None
            images, watcher = status["images"], status["watcher"]
            agrees = images == {"pending": 0, "running": 0, "indexed": count, "failed": failed}
            rests = watcher["state"] == "watching" and watcher["settling"] == 0 and not watcher["reconciling"]
            return status if agrees and rests else None

        try:
            status: dict[str, Any] = wait_for(f"{count} indexed, {failed} failed", settled, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\nstatus: {self.status()}\n{self.log_tail()}") from None
        return status
