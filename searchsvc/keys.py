"""The keys that sign tokens and cursors: one signs, and those that it followed count for as long as they are kept."""

from __future__ import annotations

import hmac
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_DIGEST = "sha256"


@dataclass(frozen=True, slots=True)
class Key:
    """`kid` is the name that its signatures carry; None for the one of `JWT_SECRET`, whose signatures carry none."""

    kid: str | None
    secret: bytes = field(repr=False)

    def derived(self, purpose: bytes) -> bytes:
        """Another key, which tells nothing of this one: what is signed for one purpose never counts for another."""
        return hmac.digest(self.secret, purpose, _DIGEST)


class KeyRing:
    """The first key signs; all of them verify, each what carries its name. Never empty; names are distinct."""

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)
        self._by_kid = {key.kid: key for key in keys}
        if not self._keys or len(self._by_kid) != len(self._keys):
            raise ValueError("a ring needs keys of distinct names")

    @property
    def signing(self) -> Key:
        return self._keys[0]

    def named(self, kid: str | None) -> Key | None:
        return self._by_kid.get(kid)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._keys)
