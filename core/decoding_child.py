"""One process of `core.decoding`, as its parent holds it: the memory that both share, and the pipes that they talk over."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from core.decode import DecodeLimits

_START_S = 60.0
_PATIENCE = 4.0
"""Times the bound on a picture's time after which the parent ends the process, should it not have ended itself."""

_HUNG_UP_S = 5.0
_KEPT_BYTES = 8 * 2**20
"""Shared memory that stays between pictures."""

_MOST_SAID = 2**16

_PASSED_ON = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TZ")
"""Of the environment: no secret."""

_ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**25), "MALLOC_MMAP_THRESHOLD_": str(2**25), "OPENBLAS_NUM_THREADS": "1"}
"""glibc otherwise returns the memory of every picture, and takes it anew for the next: a third of the time goes into clearing pages."""

Answer = dict[str, Any]


class Died(Exception):
    """The process is no more, or of no use. `code` is the negative signal that ended it, or its exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(f"it ended with {code}")
        self.code = code


class Child:
    """Of one thread at a time; `kill` alone may be called by others. Raises OSError or Died when it cannot be started."""

    def __init__(self, limits: DecodeLimits, module: str) -> None:
        size = max(limits.max_bytes, 3 * limits.max_pixels)
        descriptor = _shared_memory(size)
        self.peak_bytes = self._used = 0
        self._patience_s = limits.max_seconds * _PATIENCE
        asked = {"arena": descriptor, "arena_bytes": size, "limits": asdict(limits)}
        try:
            self._arena = mmap.mmap(descriptor, size)
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", module, json.dumps(asked)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                env={name: os.environ[name] for name in _PASSED_ON if name in os.environ} | _ALLOCATOR,
                pass_fds=(descriptor,),
                process_group=0,  # Ctrl-C is for the parent, which then ends its children
            )
        finally:
            os.close(descriptor)
        try:
            self._heard(time.monotonic() + _START_S)
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, call: str, image: bytes, options: Mapping[str, Any]) -> Answer:
        """Raises Died."""
        self._used = max(self._used, len(image))
        self._arena[: len(image)] = image
        line = json.dumps({"call": call, "bytes": len(image), "options": options}).encode() + b"\n"
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with suppress(BrokenPipeError):  # that it is dead is heard below, with its code
            self._process.stdin.write(line)
        answer = self._heard(time.monotonic() + self._patience_s)
        self.peak_bytes = int(answer["peak_bytes"])
        return answer

    def made(self, size: int) -> bytearray:
        """A copy of what the last answer is about. Raises ValueError for a size that cannot be."""
        if not 0 < size <= len(self._arena):
            raise ValueError(size)
        self._used = max(self._used, size)
        return bytearray(memoryview(self._arena)[:size])

    def rest(self) -> None:
        """Give back the memory of a large picture."""
        if self._used > _KEPT_BYTES and hasattr(mmap, "MADV_REMOVE"):
            self._arena.madvise(mmap.MADV_REMOVE)
            self._used = 0

    def _code(self) -> int:
        """Of a process that has hung up."""
        try:
            return self._process.wait(_HUNG_UP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def end(self) -> None:
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _heard(self, deadline: float) -> Answer:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        said = b""
        poll = select.poll()
        poll.register(self._process.stdout, select.POLLIN)
        while not said.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                self.kill()
                raise Died(-signal.SIGALRM)
            heard = os.read(self._process.stdout.fileno(), _MOST_SAID)
            if not heard:
                raise Died(self._code())
            said += heard
            if len(said) > _MOST_SAID:
                raise ValueError("that is no answer")
        answer = json.loads(said)
        if not isinstance(answer, dict):
            raise TypeError("that is no answer")
        return answer


def _shared_memory(size: int) -> int:
    """A descriptor of so much memory, of which none is taken before it is written to. The child can neither shrink nor grow it."""
    if not hasattr(os, "memfd_create"):  # pragma: no cover - not Linux
        with tempfile.TemporaryFile() as file:
            file.truncate(size)
            return os.dup(file.fileno())
    descriptor = os.memfd_create("picture", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError:  # such as beyond RLIMIT_FSIZE
        os.close(descriptor)
        raise
    return descriptor
