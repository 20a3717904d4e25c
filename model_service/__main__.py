"""`python -m model_service`: alone on HOST and PORT, or as the standalone's child on a socket that it inherits."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import threading
import time

import structlog
from pydantic import ValidationError

from core import logs
from core.serving import until_signalled
from core.settings import faults_of
from core.threads import limit_libraries, usable_cores
from model_service.app import create_app
from model_service.draining import serve
from model_service.registry import load
from model_service.settings import ModelSettings

log = structlog.get_logger()


def main() -> int:
    arguments = _arguments()
    try:
        settings = ModelSettings()
        listener = _listener(settings, arguments.listen_fd)
    except ValidationError as error:
        print(f"The settings of the model service don't hold:\n{faults_of(error)}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 1
    except OSError as error:
        print(f"Cannot start the model service: {error}", file=sys.stderr)  # noqa: T201 - there is no log yet
        return 1
    limit_libraries(settings.model_threads or usable_cores())
    logs.configure(level=settings.log_level, log_format=settings.log_format, service="model_service")
    if arguments.exit_with_parent:
        threading.Thread(target=_end_with_parent, args=(settings.shutdown_grace_s,), name="parent-watch", daemon=True).start()
    asyncio.run(_serve(settings, listener))
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="model_service", description="Embeddings and segments over HTTP.")
    parser.add_argument("--listen-fd", type=int, help="a bound socket to serve on instead of HOST and PORT")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input ends")
    return parser.parse_args()


def _listener(settings: ModelSettings, descriptor: int | None) -> socket.socket:
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    return socket.create_server((settings.host, settings.port), backlog=1024)


def _end_with_parent(grace_s: float) -> None:
    """Wait for the end of standard input, which the parent alone holds open; then stop as on a signal, and hard after the grace."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s)
    os._exit(1)


async def _serve(settings: ModelSettings, listener: socket.socket) -> None:
    app = create_app(settings, load=load)
    host, port = listener.getsockname()[:2]

    async def until_told() -> None:
        log.info("model_service_listening", host=host, port=port, profile=settings.model_profile)
        await until_signalled()

    await serve(app, listener, settings, until=until_told)
    log.info("model_service_stopped")


if __name__ == "__main__":
    code = main()
    # A runtime that is still loading, or in the middle of a batch, cannot be interrupted, and nothing here is worth waiting for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
