"""The model service as a supervised child: a crash in a native decoder or model costs a restart, never the search service."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import structlog

from standalone.listeners import LOOPBACK, AddressInUse, bind

if TYPE_CHECKING:
    import socket

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_STABLE_AFTER_S = 60.0


class ModelProcess:
    """Runs `python -m model_service` on an inherited loopback socket for as long as the context lasts.

    Only the child holds the socket while it lives, so that callers are refused at once, and not kept waiting, when it is dead.
    The child's standard input is a pipe that only this process holds open, so that the child ends with it, `kill -9` included.
    It has a process group of its own: Ctrl-C reaches this process alone, which then ends the child when nobody needs it any more.
    """

    def __init__(self, listener: socket.socket, *, environment: Mapping[str, str], stop_grace_s: float) -> None:
        self._listener: socket.socket | None = listener
        self._port: int = listener.getsockname()[1]
        self._environment = dict(environment)
        self._stop_grace_s = stop_grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._supervision: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._supervision = asyncio.create_task(self._supervise(), name="model-process")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._supervision is not None:
            self._supervision.cancel()
            with suppress(asyncio.CancelledError):
                await self._supervision
        await self._stop()

    @property
    def pid(self) -> int | None:
        """Process id of the living child."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def _supervise(self) -> None:
        loop = asyncio.get_running_loop()
        pause_s = _FIRST_PAUSE_S
        while True:
            started = loop.time()
            try:
                self._process = await self._start()
            except (AddressInUse, OSError) as error:
                code: int | str = str(error)
            else:
                code = await self._process.wait()
            if loop.time() - started > _STABLE_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            log.warning("model_service_died", code=code, restart_in_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _start(self) -> asyncio.subprocess.Process:
        listener = self._listener or bind(LOOPBACK, self._port)
        self._listener = None
        with listener:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "model_service",
                "--listen-fd",
                str(listener.fileno()),
                "--exit-with-parent",
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(listener.fileno(),),
                env=self._environment,
                process_group=0,
            )
        log.info("model_service_started", pid=process.pid)
        return process

    async def _stop(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), self._stop_grace_s)
        except TimeoutError:
            log.warning("model_service_killed", after_s=self._stop_grace_s)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def child_environment(*, host: str, port: int) -> dict[str, str]:
    """This process's environment with the child's own address in it. Its one caller ends with it, so it need not drain."""
    return {**os.environ, "HOST": host, "PORT": str(port), "DRAIN_S": "0"}
