"""Bound sockets: made before the services start, so that an address in use is told at once and a child can inherit its own."""

from __future__ import annotations

import errno
import socket

LOOPBACK = "127.0.0.1"


class AddressInUse(Exception):
    """Something else listens there already."""


def bind(host: str, port: int) -> socket.socket:
    """Bind a TCP socket. Raises AddressInUse, or OSError, which names the address, when it cannot be had at all."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse(f"port {port} on {host} is in use") from None
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError | UnicodeError) -> OSError:
    why = error.strerror if isinstance(error, OSError) else "this is no name of a host"
    return OSError(f"nothing can listen on {host}, port {port}: {why}")


def bind_near(port: int) -> socket.socket:
    """Bind `port` on loopback, or any free one where it is in use: for what only this process tree talks to."""
    try:
        return bind(LOOPBACK, port)
    except AddressInUse:
        return bind(LOOPBACK, 0)


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - not bound here, only named: a browser wants an address that it can open
        host = LOOPBACK
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
