"""The keys of the feedback tokens: given, or made once and kept."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Sequence
from pathlib import Path

import jwt
import structlog
from jwt.algorithms import HMACAlgorithm

from core import files
from searchsvc.keys import Key, KeyRing

log = structlog.get_logger()

SHORTEST_SAFE_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""

_HS256 = HMACAlgorithm(HMACAlgorithm.SHA256)

SECRET_NAME = "jwt_secret"  # noqa: S105 - a file's name
_GUESSABLE_BYTES = 16
_FEWEST_CHARACTERS = 8
_PUBLISHED = {
    "your256bitsecret",
    "astringsecretatleast256bitslong",
    "yoursecretkeyhere",
    "supersecretjwtkey",
    "pleasechangethissecret",
}
"""What pages about JWT show as an example, without its punctuation."""


def is_guessable(secret: str) -> bool:
    """Whether anybody who holds one token, which is everybody who searches, could find the key by trying."""
    bare = re.sub(r"[^a-z0-9]", "", secret.lower())
    return len(secret.encode()) < _GUESSABLE_BYTES or len(set(secret)) < _FEWEST_CHARACTERS or bare in _PUBLISHED


def is_other_key(secret: str) -> bool:
    """Whether it is a key or certificate of another kind (PEM, SSH, JWK), with which nothing can be signed: some of those are public."""
    try:
        _HS256.prepare_key(secret)
    except jwt.InvalidKeyError:
        return bool(secret)
    return False


def key_ring(named: Sequence[tuple[str, str]], given: str | None, root: bytes) -> KeyRing:
    """From JWT_SECRETS and JWT_SECRET; `root` is that of `jwt_key`. With names, a JWT_SECRET only verifies: it is the key before them."""
    keys = [Key(kid, secret.encode()) for kid, secret in named]
    if given is not None or not keys:
        keys.append(Key(None, root))
    return KeyRing(keys)


def jwt_key(given: str | None, data_dir: Path) -> bytes:
    """The configured key, else the one in `data_dir`, which is made if it is missing. Blocks on the disk. Raises OSError."""
    key = given.encode() if given is not None else _kept_key(data_dir)
    if len(key) < SHORTEST_SAFE_BYTES:
        log.warning("jwt_secret_short", bytes=len(key), wanted=SHORTEST_SAFE_BYTES)
    return key


def _kept_key(data_dir: Path) -> bytes:
    path = data_dir / SECRET_NAME
    files.make_folder(data_dir)
    files.sweep(path)
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            if key := path.read_bytes().strip():
                if path.stat().st_mode & 0o077:
                    path.chmod(0o600)
                    log.warning("jwt_secret_permissions_narrowed")
                return key
            path.unlink()  # a power cut left it empty
        _make(path)
    raise OSError(f"{SECRET_NAME} cannot be kept in DATA_DIR")


def _make(path: Path) -> None:
    """A whole key that survives a power cut, and never in the place of another process's."""
    with contextlib.suppress(FileExistsError):
        files.write_durably(path, f"{secrets.token_hex(SHORTEST_SAFE_BYTES)}\n".encode(), mode=0o600, replacing=False)
        log.info("jwt_secret_made")
