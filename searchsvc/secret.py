"""The key of the feedback tokens: given, or made once and kept."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from uuid import uuid4

import structlog

log = structlog.get_logger()

SHORTEST_SAFE_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash."""

_FILE_NAME = "jwt_secret"


def jwt_key(given: str | None, data_dir: Path) -> bytes:
    """The configured key, else the one in `data_dir`, which is made if it is missing. Blocks on the disk. Raises OSError."""
    key = given.encode() if given is not None else _kept_key(data_dir)
    if len(key) < SHORTEST_SAFE_BYTES:
        log.warning("jwt_secret_short", bytes=len(key), wanted=SHORTEST_SAFE_BYTES)
    return key


def _kept_key(data_dir: Path) -> bytes:
    path = data_dir / _FILE_NAME
    data_dir.mkdir(parents=True, exist_ok=True)
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError):
            if key := path.read_bytes().strip():
                if path.stat().st_mode & 0o077:
                    path.chmod(0o600)
                    log.warning("jwt_secret_permissions_narrowed")
                return key
            path.unlink()  # a power cut left it empty
        _make(path)
    raise OSError(f"{_FILE_NAME} cannot be kept in DATA_DIR")


def _make(path: Path) -> None:
    """Write a new key under another name and link it into place, so that no process ever reads half of one or replaces another's."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(SHORTEST_SAFE_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(temporary)
            log.info("jwt_secret_made")
    finally:
        temporary.unlink()
