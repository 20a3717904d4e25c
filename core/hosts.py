"""Names and addresses of hosts, as far as it matters who can be behind them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_HOST_HEADER = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.IGNORECASE)
_NEVER_PUBLIC = ("localhost", "local", "internal", "test", "home.arpa", "lan", "home", "corp")
"""Endings that no registrar sells: RFC 6761, 6762 and 8375, and what ICANN has set aside or holds back."""


def is_loopback(host: str) -> bool:
    """Whether a service that listens on `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def name_of(header: str) -> str | None:
    """The name or address of a `Host` header or of an origin's authority, folded; None for what no browser would send."""
    found = _HOST_HEADER.fullmatch(header)
    return found["name"].lower().removesuffix(".") if found else None


class KnownHosts:
    """The names by which a service may be called.

    A page elsewhere can point its own name at an address that it could not ask otherwise (DNS rebinding): the browser then takes the
    service's answers for the page's own, and only `Host` tells. So a service on loopback goes by loopback's names alone. One that listens
    beyond cannot know its names, but an address, a single word, and an ending that is never sold cannot be pointed anywhere by a stranger.
    """

    def __init__(self, *, listens_on: str, allowed: Iterable[str] = ()) -> None:
        self._on_loopback = is_loopback(listens_on)
        self._listens_on = listens_on.lower()
        self._allowed = {name.lower() for name in allowed}

    def were_set(self, name: str) -> bool:
        """Whether the operator named it: itself, `*.` and what it ends in, or `*` for any."""
        return name in self._allowed or "*" in self._allowed or any(f"*{name[at:]}" in self._allowed for at in _dots(name))

    def __contains__(self, name: str) -> bool:
        if name == self._listens_on or self.were_set(name):
            return True
        try:
            address = ipaddress.ip_address(name.strip("[]"))
        except ValueError:
            return _is_this_machines(name) if self._on_loopback else _is_never_public(name)
        return address.is_loopback or address.is_unspecified or not self._on_loopback


def _dots(name: str) -> list[int]:
    return [at for at, character in enumerate(name) if character == "."]


def _is_this_machines(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _is_never_public(name: str) -> bool:
    return "." not in name or name.endswith(tuple(f".{ending}" for ending in _NEVER_PUBLIC))
