"""Ports for processes that are told one before they take it.

They lie below those that the system gives out by itself, and every process of tests has a stretch of its own: nobody else is given
one between its choice and its use.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

_FIRST, _STRETCH, _STRETCHES = 20_000, 60, 200


def _turns() -> Iterator[int]:
    """All of the stretch, again and again. Processes that are started one after the other have different ones."""
    beginning = _FIRST + os.getpid() % _STRETCHES * _STRETCH
    while True:
        yield from range(beginning, beginning + _STRETCH)


_TURNS = _turns()


def free_port() -> int:
    """Nobody listens on it, and it is given again after sixty others."""
    (port,) = free_ports(1)
    return port


def free_ports(count: int) -> list[int]:
    """Neighbours: each is one more than the one before."""
    found: list[int] = []
    for _, port in zip(range(20 * _STRETCH), _TURNS, strict=False):
        found = [*found, port] if not found or port == found[-1] + 1 else [port]
        if not _is_free(port):
            found = []
        if len(found) == count:
            return found
    raise RuntimeError(f"no {count} neighbouring ports are free")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
