"""A worker's HTTP side: whether it can work, and what it counted."""

from __future__ import annotations

from aiohttp import web

from core.errors import Unavailable
from core.gate import Gate
from core.schemas import Health
from core.web import json_answer, make_application, metrics_route
from watcher.metrics import IngestionMetrics
from watcher.queue.broker import Broker
from watcher.worker import Worker

_LARGEST_BODY = 1024


class Routes:
    def __init__(self, worker: Worker, broker: Broker) -> None:
        self._worker = worker
        self._broker = broker

    async def live(self, _: web.Request) -> web.Response:
        return json_answer(Health(status="ok"))

    async def ready(self, _: web.Request) -> web.Response:
        """What is missing is told; work in hand goes on, or waits for it."""
        checks = {"broker": await self._broker_state(), "ingestion": self._worker.waiting_for or "ok"}
        missing = [why for why in checks.values() if why != "ok"]
        if missing:
            return json_answer(Health(status="unavailable", detail=missing[0], checks=checks), status=503)
        return json_answer(Health(status="ok", checks=checks))

    async def _broker_state(self) -> str:
        try:
            await self._broker.waiting()
        except Unavailable as error:
            return str(error)
        return "ok"


def make_app(worker: Worker, metrics: IngestionMetrics, broker: Broker, gate: Gate) -> web.Application:
    routes = Routes(worker, broker)
    app = make_application("worker", metrics.registry, gate=gate, client_max_size=_LARGEST_BODY)
    app.add_routes(
        [
            web.get("/health/live", routes.live),
            web.get("/health/ready", routes.ready),
            web.get("/metrics", metrics_route(metrics.registry)),
        ]
    )
    return app
