"""`python -m tests.queue.model`: a model service that takes a fixed time for each picture, and counts how often it saw which."""

from __future__ import annotations

import argparse
import asyncio
from collections import Counter

from aiohttp import web

from core.errors import ImageRejected
from core.schemas import Health
from tests.fakes import FakeEmbedder, image_id_of

CALLS = web.AppKey("calls", Counter[str])


def model_app(latency_s: float) -> web.Application:
    embedder, calls = FakeEmbedder(), Counter[str]()

    async def models(_: web.Request) -> web.Response:
        return web.Response(body=(await embedder.info()).model_dump_json(), content_type="application/json")

    async def ready(_: web.Request) -> web.Response:
        return web.Response(body=Health(status="ok").model_dump_json(), content_type="application/json")

    async def analyse(request: web.Request) -> web.Response:
        content = await request.read()
        calls[image_id_of(content)] += 1
        if content.endswith(b"poison"):
            assert request.transport is not None
            request.transport.abort()  # as a service does that dies
        await asyncio.sleep(latency_s)
        try:
            made = await embedder.analyse(content)
        except ImageRejected as error:
            problem = {"code": error.reason.value, "detail": str(error)}
            return web.json_response(problem, status=422)
        return web.Response(body=made.model_dump_json(), content_type="application/json")

    async def told(_: web.Request) -> web.Response:
        return web.json_response(calls)

    app = web.Application(client_max_size=2**24)
    app[CALLS] = calls
    app.add_routes(
        [
            web.get("/v1/models", models),
            web.get("/health/ready", ready),
            web.post("/v1/analyse", analyse),
            web.get("/calls", told),
        ]
    )
    return app


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.005)
    asked = parser.parse_args()
    web.run_app(model_app(asked.latency), host="127.0.0.1", port=asked.port, print=None, access_log=None)
