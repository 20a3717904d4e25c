"""A decoding process with faults in it, for tests: what a picture is followed by (`faulty`) goes wrong when that picture is decoded."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from core import decode, decoding_process

_MARK = b"fault:"


def faulty(picture: bytes, fault: str) -> bytes:
    """The picture, with a fault that this module shows and no other decoder sees: what follows a picture's end is not read."""
    return picture + _MARK + fault.encode()


def png(colour: str = "red", side: int = 40) -> bytes:
    written = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(written, "PNG")
    return written.getvalue()


def _segfault() -> None:
    ctypes.string_at(0)


def _spin() -> None:
    while True:
        pass


def _eat_and_crash() -> None:
    """As a decoder in C does that doesn't look at what malloc says."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.malloc.argtypes = [ctypes.c_size_t]
    while block := libc.malloc(2**24):
        ctypes.memset(block, 1, 2**24)
    ctypes.memset(0, 1, 1)


def _eat() -> None:
    eaten = []
    while True:
        eaten.append(b"x" * 2**24)


def _chatter() -> None:
    while True:
        sys.stdout.buffer.write(b"x" * 2**20)


def _lie(said: bytes) -> Callable[[], None]:
    def lie() -> None:
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()
        time.sleep(600)

    return lie


def _hang_up() -> None:
    os.close(0)
    os.close(1)
    time.sleep(600)


def _try(*attempts: Callable[[], object]) -> None:
    """Crash if one of them succeeds."""
    for attempt in attempts:
        try:
            attempt()
        except (OSError, ValueError):
            continue
        os.abort()


FAULTS: dict[str, Callable[[], None]] = {
    "segfault": _segfault,
    "abort": os.abort,
    "exit": lambda: os._exit(3),
    "bus error": lambda: os.kill(os.getpid(), signal.SIGBUS),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "spin": _spin,
    "sleep": lambda: time.sleep(600),
    "stop": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "eat": _eat,
    "eat and crash": _eat_and_crash,
    "chatter": _chatter,
    "no JSON": _lie(b"\xff\xfe nothing"),
    "nested JSON": _lie(b"[" * 30_000),
    "no answer": _lie(b"[1, 2, 3]"),
    "too many pixels": _lie(
        b'{"shape": [1000000, 1000000], "bytes": 3000000000000, "facts": [1, 1, "PNG", null, null], "peak_bytes": 1}'
    ),
    "negative pixels": _lie(b'{"shape": [-1, -1], "bytes": 3, "facts": [1, 1, "PNG", null, null], "peak_bytes": 1}'),
    "no such reason": _lie(b'{"rejected": "for fun", "detail": "", "peak_bytes": 1}'),
    "infinite memory": _lie(b'{"rejected": "corrupt", "detail": "", "peak_bytes": Infinity}'),
    "hang up": _hang_up,
    "reach out": lambda: _try(
        lambda: Path("/etc/hostname").read_bytes(),
        lambda: Path(__file__).with_name("written").write_bytes(b""),
        socket.socket,
        socket.socketpair,
        os.pipe,
        lambda: os.ftruncate(3, 1),
    ),
}

_upright = decode.upright


def upright_or_worse(image: bytes, *arguments: Any, **options: Any) -> Any:
    """In the place of `core.decode.upright`."""
    _, mark, fault = image.rpartition(_MARK)
    if mark:
        FAULTS[fault.decode()]()
    return _upright(image, *arguments, **options)


if __name__ == "__main__":
    decode.upright = upright_or_worse
    decoding_process.main()
