"""Ingestion by a queue as it is run: watcher and workers as processes, beside PostgreSQL, Redis, and stand-ins for Qdrant and the models."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psycopg

from tests.e2e.product import REPOSITORY, wait_for
from tests.ports import free_port

QUICK = {
    "SETTLE_S": "0.3",
    "TRUNCATED_AFTER_S": "0.8",
    "RETRY_MIN_S": "0.1",
    "OUTAGE_RETRY_MAX_S": "0.5",
    "LEASE_S": "5",
    "RECONCILE_INTERVAL_S": "30",
    "LOG_FORMAT": "json",
    "INGEST_CONCURRENCY": "8",
    "QDRANT_PREFER_GRPC": "false",
}


def why_not() -> str | None:
    """Why there can be no broker here."""
    if shutil.which("redis-server") is None:
        return "needs Redis: apt-get install redis-server"
    try:
        import celery  # noqa: F401
        import redis  # noqa: F401
    except ImportError:
        return "needs Celery: pip install '.[queue]'"
    return None


class Process:
    """A process that may be killed and started again, with its output in one file."""

    def __init__(self, log: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = log
        self._command = command
        self._environment = environment or {}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as sink:
            environment = {**os.environ, **self._environment}
            self.process = subprocess.Popen(self._command, cwd=REPOSITORY, env=environment, stdout=sink, stderr=sink)
        return self

    def end(self, sign: signal.Signals = signal.SIGTERM, *, within_s: float = 20.0) -> int:
        assert self.process is not None
        self.process.send_signal(sign)
        return self.process.wait(within_s)

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def events(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


class BrokerServer(Process):
    """`flush` makes it as new, `keys` tells how much stands where, `received` takes all tasks in a worker's order."""

    url: str


class Redis(BrokerServer):
    """Without a file: what it held is gone when it ends."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = ("redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
        super().__init__(log, *command, "--dir", tempfile.gettempdir(), "--loglevel", "warning")

    def start(self) -> Self:
        import redis

        super().start()

        def answers() -> bool:
            with redis.Redis(port=self.port) as client, suppress(redis.ConnectionError):
                return bool(client.ping())
            return False

        wait_for("redis", answers, timeout_s=20)
        return self

    def flush(self) -> None:
        import redis

        with redis.Redis(port=self.port) as client:
            client.flushall()

    def received(self) -> list[list[str]]:
        """The arguments of all tasks, in the order in which a worker would take them."""
        import redis

        found = []
        keys = ("imagesearch.ingest", "imagesearch.ingest\x06\x161", "imagesearch.ingest\x06\x162")
        with redis.Redis(port=self.port) as client:
            while (popped := client.brpop(keys, timeout=1)) is not None:
                arguments, named, _ = json.loads(base64.b64decode(json.loads(popped[1])["body"]))
                assert named == {}
                found.append(arguments)
        return found

    def keys(self) -> dict[str, int]:
        """How much stands under each key."""
        import redis

        sizes = {"list": "llen", "hash": "hlen", "zset": "zcard", "set": "scard"}
        with redis.Redis(port=self.port, decode_responses=True) as client:
            return {key: getattr(client, sizes[client.type(key)])(key) for key in client.scan_iter() if client.type(key) in sizes}


class Worker(Process):
    def __init__(self, url: str, log: Path, environment: Mapping[str, str]) -> None:
        self.url = url
        super().__init__(log, sys.executable, "-m", "watcher.queue", environment=environment)


class Fleet:
    """A context manager: the stand-ins, the broker and the watcher run within it, and the workers that were started."""

    def __init__(
        self,
        root: Path,
        database_url: str,
        *,
        latency_s: float = 0.005,
        environment: Mapping[str, str] | None = None,
        broker: BrokerServer | None = None,
    ) -> None:
        """`broker`: one that runs already, and goes on; else a Redis of its own."""
        self.root = root
        self.images = root / "images"
        self.images.mkdir(parents=True)
        ports = {name: free_port() for name in ("qdrant", "model", "watcher")}
        self.urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        self.database_url = database_url
        self.broker = broker or Redis(root / "redis.log")
        self.environment = {
            **QUICK,
            "IMAGES_DIR": str(self.images),
            "DATA_DIR": str(root / "state"),
            "QDRANT_URL": self.urls["qdrant"],
            "MODEL_URL": self.urls["model"],
            "DATABASE_URL": database_url,
            "BROKER_URL": self.broker.url,
            **(environment or {}),
        }
        python = sys.executable
        model = ("-m", "tests.queue.model", "--port", str(ports["model"]), "--latency", str(latency_s))
        self.qdrant = Process(root / "qdrant.log", python, "-m", "tests.qdrant_rest", "--port", str(ports["qdrant"]))
        self.model = Process(root / "model.log", python, *model)
        self.watcher = Process(
            root / "watcher.log", python, "-m", "watcher", environment={**self.environment, "PORT": str(ports["watcher"])}
        )
        self.workers: list[Worker] = []
        self.http = httpx.Client(trust_env=False, timeout=20)

    def __enter__(self) -> Self:
        self._own = [process for process in (self.broker, self.qdrant, self.model, self.watcher) if not process.is_running]
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for process in self._own:
            process.start()
        for name in ("qdrant", "model"):
            url = f"{self.urls[name]}{'/v1/models' if name == 'model' else ''}"
            wait_for(name, lambda url=url: self.answers(url), timeout_s=120)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        running = [process for process in (*self._own, *reversed(self.workers)) if process.is_running]
        with ExitStack() as stack:
            for process in running:
                stack.callback(process.end, signal.SIGKILL)

    @property
    def redis(self) -> Redis:
        assert isinstance(self.broker, Redis)
        return self.broker

    def answers(self, url: str) -> bool:
        try:
            return self.http.get(url).status_code == 200
        except httpx.TransportError:
            return False

    def add_worker(self, **environment: str) -> Worker:
        port = free_port()
        log = self.root / f"worker-{len(self.workers)}.log"
        settings = {**self.environment, "PORT": str(port), **environment}
        worker = Worker(f"http://127.0.0.1:{port}", log, settings).start()
        self.workers.append(worker)
        return worker

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{self.urls['watcher']}/v1/status").json()
        return found

    def counts(self) -> dict[str, int]:
        try:
            found: dict[str, int] = self.status()["images"]
        except (httpx.TransportError, KeyError, ValueError):
            return {}
        return found

    def indexed(self) -> int:
        return self.counts().get("indexed", 0)

    def calls(self) -> dict[str, int]:
        """How often the models saw each picture."""
        found: dict[str, int] = self.http.get(f"{self.urls['model']}/calls").json()
        return found

    def wait_indexed(self, count: int, *, timeout_s: float) -> None:
        """That many, or more."""
        try:
            wait_for(f"{count} indexed", lambda: self.indexed() >= count, timeout_s=timeout_s, every_s=0.05)
        except AssertionError as error:
            tails = "\n".join(f"--- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.root.glob("*.log")))
            raise AssertionError(f"{error}: {self.counts()} {self.broker.keys()} {len(self.rows())} tasks\n{tails}") from None

    def rows(self) -> list[tuple[Any, ...]]:
        """Tasks that the ledger takes for sent."""
        with psycopg.connect(self.database_url) as connection:
            return connection.execute("SELECT image_id, priority, sent_at FROM tasks ORDER BY sent_at").fetchall()
