"""API keys as they are configured: plain, or as a digest from which the key cannot be had.

python -m searchsvc.api_keys        # makes a key, and what to write into API_KEYS for it

A key made here has 256 random bits, so one keyed hash is enough: what slows guessing down (scrypt, Argon2) helps words that people
think of, and would cost every request its time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import sys
from dataclasses import dataclass
from typing import Self

_HASHED = "sha256:"
_DIGEST = re.compile(r"(?:(?P<salt>[0-9a-f]{32}):)?(?P<digest>[0-9a-f]{64})")
_SALT_BYTES = 16
_KEY_BYTES = 32
_SHORTEST_SAFE = 16


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What is kept of a key: HMAC-SHA-256 under the salt, or plain SHA-256 where there is none."""

    salt: bytes | None
    digest: bytes

    @classmethod
    def of(cls, configured: str) -> Self:
        """`sha256:<salt>:<digest>`, `sha256:<digest>`, or the key itself. Raises ValueError, which does not repeat it."""
        if not configured.startswith(_HASHED):
            return cls(None, _digest(None, configured))
        found = _DIGEST.fullmatch(configured.removeprefix(_HASHED).lower())
        if found is None:
            raise ValueError("a hashed key is sha256:<32 hexadecimal digits of salt>:<64 of digest>, or sha256:<64 of digest>")
        salt = found["salt"]
        return cls(bytes.fromhex(salt) if salt else None, bytes.fromhex(found["digest"]))

    @property
    def configured(self) -> str:
        return f"{_HASHED}{self.salt.hex() + ':' if self.salt else ''}{self.digest.hex()}"

    def is_of(self, key: str) -> bool:
        """In a time that tells nothing of how near it is."""
        return hmac.compare_digest(_digest(self.salt, key), self.digest)


def is_short(configured: str) -> bool:
    """Whether a plain key is so short that it may be found by trying; of a hash nobody can tell."""
    return not configured.startswith(_HASHED) and len(configured) < _SHORTEST_SAFE


def made() -> tuple[str, StoredKey]:
    """A new key, and what to keep of it."""
    key, salt = secrets.token_urlsafe(_KEY_BYTES), secrets.token_bytes(_SALT_BYTES)
    return key, StoredKey(salt, _digest(salt, key))


def _digest(salt: bytes | None, key: str) -> bytes:
    plain = key.encode("utf-8", "surrogateescape")
    return hashlib.sha256(plain).digest() if salt is None else hmac.digest(salt, plain, "sha256")


if __name__ == "__main__":
    new_key, stored = made()
    sys.stdout.write(f"for the client, shown this once:  {new_key}\nfor the server's API_KEYS:        {stored.configured}\n")
