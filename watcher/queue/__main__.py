"""`python -m watcher.queue`: a worker. Any number of them ingest what the watcher sends to the broker.

Celery's own worker with threads, each of which waits for one picture on an event loop that they share (`watcher.queue.bench`): the code
that ingests is the watcher's, and its decoders, pools and leases are there once a process. Processes of Celery's would each need all of it,
and its pools for greenlets patch what asyncio stands on.
"""

from __future__ import annotations

import logging
import sys
import warnings
from asyncio import CancelledError
from concurrent import futures
from typing import Any

from celery import signals
from celery.exceptions import Reject
from celery.platforms import SecurityWarning
from pydantic import ValidationError

from core import logs
from core.errors import ImageSearchError
from core.settings import faults_of
from watcher.queue.bench import Bench
from watcher.queue.broker import TASK, celery_of
from watcher.queue.place import BrokerPlace
from watcher.queue.request import TaskRequest
from watcher.settings import WorkerSettings


def _work(settings: WorkerSettings, place: BrokerPlace, qdrant_url: str) -> int:
    bench = Bench(settings, place, qdrant_url)

    def ingest(image_id: str, traceparent: str) -> None:
        try:
            bench.ingest(image_id, traceparent)
        except (CancelledError, futures.CancelledError):
            raise Reject("this worker ends", requeue=True) from None

    def on_end(*_: object, **__: object) -> None:
        bench.close()

    app = celery_of(place)
    app.task(name=TASK, ignore_result=True, Request=TaskRequest)(ingest)
    signals.setup_logging.connect(_kept_logging)  # or Celery sets up its own
    signals.worker_shutting_down.connect(on_end)
    bench.open()
    try:
        worker = app.Worker(
            pool="threads",
            concurrency=settings.ingest_concurrency,
            optimization="fair",
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
            quiet=True,
        )
        worker.start()
        return int(worker.exitcode or 0)
    finally:
        bench.close()
        bench.join()


def _kept_logging(*_: object, **__: Any) -> None: ...


def main() -> int:
    """Work until SIGINT or SIGTERM. Returns the exit code."""
    try:
        settings = WorkerSettings()
    except ValidationError as error:
        print(f"the settings are not usable:\n{faults_of(error)}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 2
    logs.configure(level=settings.log_level, log_format=settings.log_format, service="worker")
    for chatty in ("celery", "kombu"):  # two lines a task, beside our own
        logging.getLogger(chatty).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=SecurityWarning)  # of root and pickles, which are never read here
    try:
        place = settings.broker
        if place is None or settings.qdrant_url is None:
            print("a worker needs a broker: set BROKER_URL", file=sys.stderr)  # noqa: T201 - for the person at the terminal
            return 2
        return _work(settings, place, settings.qdrant_url)
    except (ImageSearchError, OSError) as error:
        print(f"the worker cannot start: {error}", file=sys.stderr)  # noqa: T201 - for the person at the terminal
        return 1


if __name__ == "__main__":
    sys.exit(main())
