"""Who may write (upload, delete, segment again) and who may read what people rated."""

from __future__ import annotations

from collections.abc import Iterable

from core.errors import Unauthorized
from core.hosts import is_loopback, name_of
from searchsvc.api_keys import StoredKey

_MAX_KEY_CHARACTERS = 512


class WriteAccess:
    """Asks for a key whenever keys are set or the service listens beyond loopback."""

    def __init__(self, api_keys: Iterable[str], *, listens_on: str) -> None:
        self._keys = [StoredKey.of(configured) for configured in api_keys]
        self._open = not self._keys and is_loopback(listens_on)

    @property
    def needs_key(self) -> bool:
        return not self._open

    def check(self, *, authorization: str | None, origin: str | None, host: str) -> None:
        """Raises Unauthorized. `origin` and `host` are the request's headers: without keys they keep other sites' pages out."""
        if self._open:
            _check_same_site(origin, host)
        elif not self._keys:
            raise Unauthorized("writing beyond loopback needs a key: set API_KEYS on the server")
        else:
            self._check_key(authorization or "")

    def check_reading(self, *, authorization: str | None, origin: str | None, host: str) -> None:
        """The same for reading what is personal. A page may read without `Origin`, so without keys `host` itself must be this machine."""
        self.check(authorization=authorization, origin=origin, host=host)
        if self._open and not _is_this_machine(host):
            raise Unauthorized(
                "what people asked and rated is read by this machine's own names alone, or with a key: set API_KEYS"
            )

    def known_key(self, authorization: str | None) -> str | None:
        """The API key that came with a request, if it is one of ours."""
        key = _bearer(authorization or "")
        return key if key is not None and self._is_known(key) else None

    def knows(self, authorization: str | None) -> bool:
        return self.known_key(authorization) is not None

    def _check_key(self, authorization: str) -> None:
        key = _bearer(authorization)
        if key is None:
            raise Unauthorized("send one of the API keys as `Authorization: Bearer <key>`")
        if not self._is_known(key):
            raise Unauthorized("this API key is not known")

    def _is_known(self, key: str) -> bool:
        matches = [known.is_of(key) for known in self._keys]  # all of them: the time tells nothing
        return any(matches)


def _bearer(authorization: str) -> str | None:
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    return key if scheme.lower() == "bearer" and 0 < len(key) <= _MAX_KEY_CHARACTERS else None


def _check_same_site(origin: str | None, host: str) -> None:
    """A browser names the page that asks in `Origin`; a page of another site must not write, and no DNS name may pose as loopback."""
    if origin is None:
        return
    asking, asked = origin.partition("://")[2].lower(), host.lower()
    if asking != asked or not _is_this_machine(asked):
        raise Unauthorized("pages of other addresses need a key to write here: set API_KEYS on the server")


def _is_this_machine(host: str) -> bool:
    return is_loopback(name_of(host) or "")
