"""From where a request comes: the other side of the connection, or whom a proxy that is trusted names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from core.hosts import is_loopback


class Callers:
    """`trusted` are the proxies' addresses or networks. Whatever others say of where a request comes from is not believed."""

    def __init__(self, trusted: Iterable[str] = ()) -> None:
        self._trusted = [ipaddress.ip_network(network, strict=False) for network in trusted]

    def address(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """`forwarded` are the values of `X-Forwarded-For`. The last address in them that no trusted proxy has is the caller's."""
        named = [part.strip() for value in forwarded for part in value.split(",")]
        address = peer or ""
        while named and self._is_trusted(address):
            address = named.pop()
        return address

    def is_local(self, address: str) -> bool:
        """Whether somebody on this machine asks. Who can do that could harm it more by other means."""
        return is_loopback(address) and not self._is_trusted(address)

    def _is_trusted(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        return any(parsed in network for network in self._trusted)
