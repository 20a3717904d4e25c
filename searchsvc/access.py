"""Who may write: upload, delete, segment again."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from core.errors import Unauthorized

_MAX_KEY_CHARACTERS = 512


def is_loopback(host: str) -> bool:
    """Whether a service that listens on `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class WriteAccess:
    """Asks for a key whenever keys are set or the service listens beyond loopback."""

    def __init__(self, api_keys: Iterable[str], *, listens_on: str) -> None:
        self._digests = [_digest(key) for key in api_keys]
        self._open = not self._digests and is_loopback(listens_on)

    @property
    def needs_key(self) -> bool:
        return not self._open

    def check(self, *, authorization: str | None, origin: str | None, host: str) -> None:
        """Raises Unauthorized. `origin` and `host` are the request's headers: without keys they keep other sites' pages out."""
        if self._open:
            _check_same_site(origin, host)
        elif not self._digests:
            raise Unauthorized("writing beyond loopback needs a key: set API_KEYS on the server")
        else:
            self._check_key(authorization or "")

    def _check_key(self, authorization: str) -> None:
        scheme, _, key = authorization.partition(" ")
        key = key.strip()
        if scheme.lower() != "bearer" or not 0 < len(key) <= _MAX_KEY_CHARACTERS:
            raise Unauthorized("send one of the API keys as `Authorization: Bearer <key>`")
        offered = _digest(key)
        matches = [hmac.compare_digest(offered, digest) for digest in self._digests]  # all of them: the time tells nothing
        if not any(matches):
            raise Unauthorized("this API key is not known")


def _check_same_site(origin: str | None, host: str) -> None:
    """A browser names the page that asks in `Origin`; a page of another site must not write, and no DNS name may pose as loopback."""
    if origin is None:
        return
    asking, asked = urlsplit(origin).netloc.lower(), host.lower()
    if asking != asked or not is_loopback(urlsplit(f"//{asked}").hostname or ""):
        raise Unauthorized("pages of other addresses need a key to write here: set API_KEYS on the server")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
