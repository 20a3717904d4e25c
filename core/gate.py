"""Which requests are heard at all: those that name this service, and that no page of another site had a browser make."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from core.errors import Forbidden
from core.hosts import KnownHosts, name_of

_READING = {"GET", "HEAD", "OPTIONS"}
_OWN = {"same-origin", "none"}
"""`Sec-Fetch-Site` of the service's own pages, and of what its user typed or chose."""
_SHOWN = {"document", ""}


def nobody(_: str | None) -> bool:
    """For services without keys."""
    return False


class Gate:
    """Asked before every request. What programs send passes: they neither mind other sites' pages nor send what browsers tell of them.

    As Go's `http.CrossOriginProtection` does, and W3C's resource isolation policy for reading: `Sec-Fetch-Site` tells, which pages cannot
    set; from browsers that leave it out, as they do on plain HTTP beyond loopback, `Origin` against `Host`. `is_known` says whether an
    `Authorization` header proves somebody who was let in: no page elsewhere has that.
    """

    def __init__(self, hosts: KnownHosts, *, is_known: Callable[[str | None], bool] = nobody) -> None:
        self._hosts = hosts
        self._is_known = is_known

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raises Forbidden."""
        authorization = headers.get("Authorization")
        if authorization is not None and self._is_known(authorization):
            return
        self._check_name(headers.get("Host", ""))
        site = headers.get("Sec-Fetch-Site")
        if method in _READING:
            foreign = site is not None and site not in _OWN and not _is_visit(headers)
        elif site is not None:
            foreign = site not in _OWN
        else:
            foreign = not self._is_own(headers.get("Origin"), headers.get("Host", ""))
        if foreign:
            raise Forbidden("pages of other sites may not ask this service")

    def _check_name(self, host: str) -> None:
        """Without a name there is no browser: HTTP/1.1 demands one."""
        if host and ((name := name_of(host)) is None or name not in self._hosts):
            raise Forbidden("this service goes by another name: add the one you used to ALLOWED_HOSTS")

    def _is_own(self, origin: str | None, host: str) -> bool:
        if origin is None:
            return True
        asking = origin.partition("://")[2].lower()
        name = name_of(asking)
        return asking == host.lower() or (name is not None and self._hosts.were_set(name))


def _is_visit(headers: Mapping[str, str]) -> bool:
    """Whether somebody follows a link to here, and sees at once where that led; frames are none."""
    return headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest", "") in _SHOWN
