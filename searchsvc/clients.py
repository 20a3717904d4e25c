"""Who rates, without a name: a pseudonym that is equal for equal clients and tells nothing else."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from enum import StrEnum

from searchsvc.access import WriteAccess

_PURPOSE = b"feedback client"
_CHARACTERS = 16


class ClientKind(StrEnum):
    KEY = "key"
    """Sent an API key."""
    LOCAL = "local"
    """A program or person on this machine, while the service listens on loopback and has no keys."""
    NETWORK = "net"
    """Anybody else: an address, behind which there may be many, or which one of many addresses of somebody may be."""


class Clients:
    """`secret` keys the pseudonyms: without it an address cannot be found by trying all of them."""

    def __init__(self, secret: bytes, access: WriteAccess) -> None:
        self._secret = hmac.digest(secret, _PURPOSE, hashlib.sha256)
        self._access = access

    def name(self, *, authorization: str | None, address: str | None) -> str:
        """`<kind>-<16 hexadecimal digits>`. `address` is the peer's; headers that a proxy or the peer itself sets are not believed."""
        if (key := self._access.known_key(authorization)) is not None:
            return self._pseudonym(ClientKind.KEY, key)
        return self._pseudonym(ClientKind.NETWORK if self._access.needs_key else ClientKind.LOCAL, _network(address or ""))

    def _pseudonym(self, kind: ClientKind, identity: str) -> str:
        digest = hmac.new(self._secret, f"{kind.value}\0{identity}".encode("utf-8", "surrogateescape"), hashlib.sha256)
        return f"{kind.value}-{digest.hexdigest()[:_CHARACTERS]}"


def is_known(client: str | None) -> bool:
    """Whether somebody whom the operator let in rated."""
    return client is not None and client.partition("-")[0] in {ClientKind.KEY.value, ClientKind.LOCAL.value}


def _network(address: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 one: a household gets at least that, and each device picks from it at will."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
