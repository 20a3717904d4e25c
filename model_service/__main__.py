"""The model service as a process of its own, or as the standalone's child."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading

import structlog
from pydantic import ValidationError

from core import logs
from core.web import serving, until_signalled
from model_service.app import application
from model_service.settings import ModelSettings

log = structlog.get_logger()

_HUNG = 70
"""Exit code after a batch that does not end (EX_SOFTWARE of sysexits.h); a supervisor starts the service again."""
_LAST_GRACE_S = 1.0


async def serve(settings: ModelSettings, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM. It answers from the first moment on; the models follow."""
    app = application(settings, on_hang=_end_hung)
    async with serving(app, listener, shutdown_grace_s=settings.shutdown_grace_s):
        log.info("models_serving", port=listener.getsockname()[1], profile=settings.model_profile)
        await until_signalled()
        log.info("models_draining")
        _end_after(settings.shutdown_grace_s + _LAST_GRACE_S)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m model_service", description=__doc__)
    parser.add_argument("--listen-fd", type=int, metavar="N", help="serve on this inherited listening socket")
    parser.add_argument("--exit-with-parent", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    try:
        settings = ModelSettings()
    except ValidationError as error:
        sys.stderr.write(f"The settings are not valid: {error}\n")
        return 2
    logs.configure(level=settings.log_level, log_format=settings.log_format, service="model_service")
    for chatty in ("filelock", "huggingface_hub", "ultralytics", "transformers"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if arguments.exit_with_parent:
        threading.Thread(target=_end_with_parent, args=(settings.shutdown_grace_s,), name="parent", daemon=True).start()
    try:
        listener = _listener(settings, arguments.listen_fd)
        asyncio.run(serve(settings, listener))
    except OSError as error:
        log.error("models_not_started", error=error.strerror or type(error).__name__, host=settings.host, port=settings.port)  # noqa: TRY400
        return 1
    log.info("models_stopped")
    return 0


def _listener(settings: ModelSettings, descriptor: int | None) -> socket.socket:
    if descriptor is not None:
        return socket.socket(fileno=descriptor)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    return socket.create_server((settings.host, settings.port), family=family, backlog=1024)


def _end_with_parent(grace_s: float) -> None:
    """Standard input ends when the parent does, `kill -9` included: then drain, and be gone whatever happens."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    _end_after(grace_s + _LAST_GRACE_S)


def _end_after(seconds: float) -> None:
    """Native code cannot be interrupted, and a stop must not wait for it."""
    ending = threading.Timer(seconds, os._exit, args=(0,))
    ending.daemon = True
    ending.start()


def _end_hung() -> None:
    os._exit(_HUNG)


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stderr.flush()
    os._exit(code)  # the interpreter would join the loading thread, which may be in the middle of a download
