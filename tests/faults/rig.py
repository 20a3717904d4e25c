"""The real product as a child process with instant models, and the strings by which a test pulls at it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from core.vectors.edge_gate import copying
from tests.checkpoints import COLOURS, SHAPES, synthetic_picture
from tests.e2e.agreement import disagreements
from tests.e2e.product import REPOSITORY, Product, wait_for
from tests.faults.injected import POINTS

_CHILD = REPOSITORY / "tests" / "faults" / "child"
QUICK = {
    "SETTLE_S": "0.3",
    "TRUNCATED_AFTER_S": "0.8",
    "ORPHAN_GRACE_S": "0.2",
    "RECONCILE_INTERVAL_S": "4",
    "RETRY_MIN_S": "0.1",
    "OUTAGE_RETRY_MAX_S": "0.5",
    "LEASE_S": "6",
    "LOG_FORMAT": "json",
}


def under_test(faults: Path) -> dict[str, str]:
    """What makes a process one that `tests.faults.injected` is in, with its orders in that folder."""
    return {"FAULTS_DIR": str(faults), "PYTHONPATH": f"{_CHILD}{os.pathsep}{REPOSITORY}"}


_PATIENCE_S = 90.0
"""A busy machine takes 40 s to start a process."""


class Rig(Product):
    """A product whose every step can be made to end it, to wait, or to fail."""

    def __init__(self, root: Path, *, environment: Mapping[str, str] | None = None) -> None:
        self.faults = root / "faults"
        self.faults.mkdir(parents=True, exist_ok=True)
        super().__init__(
            root,
            models_dir=root / "models",
            environment={
                **QUICK,
                **under_test(self.faults),
                **(environment or {}),
            },
        )

    # --- pulling strings

    def arm(self, point: str, action: str, number: int = 1, *rest: object) -> None:
        """`kill`, `hold` or `errno` at the `number`-th call from now."""
        assert point in POINTS, point
        order = " ".join(map(str, (action, number, *rest)))
        written = self.faults / ".order"
        written.write_text(order)
        written.replace(self.faults / point)

    def disarm(self, point: str) -> None:
        (self.faults / f"{point}.held").unlink(missing_ok=True)
        (self.faults / point).unlink(missing_ok=True)

    def wait_held(self, point: str, *, timeout_s: float = 20.0) -> None:
        wait_for(f"held at {point}", (self.faults / f"{point}.held").exists, timeout_s=timeout_s, every_s=0.005)

    def set_clock(self, ahead_s: float) -> None:
        written = self.faults / ".clock"
        written.write_text(str(ahead_s))
        written.replace(self.faults / "clock")

    # --- processes

    def died_within(self, timeout_s: float) -> bool:
        assert self.process is not None
        try:
            wait_for(
                "the end", lambda: self.process is None or self.process.poll() is not None, timeout_s=timeout_s, every_s=0.01
            )
        except AssertionError:
            return False
        return True

    def model_pid(self) -> int | None:
        started = [event["pid"] for event in self.log_events() if event["event"] == "model_service_started"]
        return started[-1] if started else None

    def kill_model(self) -> None:
        pid = self.model_pid()
        if pid is not None:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return

    # --- what it is asked

    def add(self, path: str, content: bytes) -> None:
        target = self.images / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)

    def upload(self, content: bytes, name: str = "upload.jpg") -> httpx.Response:
        return self.http.post("/api/v1/images", files={"file": (name, content, "image/jpeg")})

    def rest(self, *, timeout_s: float = _PATIENCE_S) -> dict[str, Any]:
        """Wait until nothing is on its way."""

        def settled() -> dict[str, Any] | None:
            try:
                status = self.status()
            except (httpx.TransportError, AssertionError):
                return None
            images, watcher = status["images"], status["watcher"]
            busy = images["pending"] + images["running"] + watcher["settling"]
            return status if not busy and watcher["state"] == "watching" and not watcher["reconciling"] else None

        try:
            found: dict[str, Any] = wait_for("at rest", settled, timeout_s=timeout_s)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log_tail(3000)}") from None
        return found

    # --- the oracle

    def disagreements(self, *, failed: frozenset[str] = frozenset()) -> list[str]:
        """From a copy of the state, so that it may be asked while the product runs and is at rest."""
        with tempfile.TemporaryDirectory(dir=self.root) as place:
            copy = Path(place) / "state"
            command = ["cp", "--archive", "--sparse=always", str(self.state), str(copy)]
            with copying(self.state / "vectors"):  # else a flush amid it leaves vectors of before, and a journal of after
                copied = subprocess.run(command, check=False, stderr=subprocess.DEVNULL)
            if copied.returncode:
                return ["state: it changes while it is looked at"]
            try:
                return disagreements(self.images, copy, failed=failed)
            except Exception as error:  # noqa: BLE001 - the engine raises bare ones, for what was copied in the middle of a write
                return [f"state: {error!r}"]

    def agree(self, *, failed: frozenset[str] = frozenset(), timeout_s: float = _PATIENCE_S) -> None:
        """Wait until folder, ledger, vectors and thumbnails tell the same."""

        def agreed() -> bool:
            self.rest(timeout_s=timeout_s)
            return not self.disagreements(failed=failed)

        try:
            wait_for("agreement", agreed, timeout_s=timeout_s, every_s=0.2)
        except AssertionError:
            raise AssertionError(f"{self.disagreements(failed=failed)}\n{self.log_tail(3000)}") from None


def some_picture(rng: random.Random, side: int = 64) -> bytes:
    """A small JPEG that no other call returns."""
    return synthetic_picture(rng.choice(tuple(COLOURS)), rng.choice(tuple(SHAPES)), side, seed=rng.randrange(2**31))
