"""A PostgreSQL server for the tests, from Debian's package: made in a temporary folder, as an unprivileged user, and gone afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.ports import free_port

_HOMES = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
_USER = "postgres"
_PATIENCE_S = 30.0

# For speed: what a power cut would cost is not what these tests ask
_OPTIONS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "max_connections": "200", "autovacuum": "off"}


class PostgresServer:
    """On a loopback port that stays the same when it is restarted."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def make_database(self, name: str) -> str:
        """An empty one. Returns its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Whoever is connected to it is cut off."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())

    def start(self) -> None:
        options = [f"-c{name}={value}" for name, value in _OPTIONS.items()]
        command = [str(_bin() / "postgres"), "-D", str(self.folder / "data"), "-k", str(self.folder), "-h", "127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([*command, "-p", str(self.port), *options], stdout=log, stderr=log, **_as_user())
        deadline = time.monotonic() + _PATIENCE_S
        while not self._answers():
            alive = self._process.poll() is None
            assert alive and time.monotonic() < deadline, (self.folder / "log").read_text()  # noqa: PT018 - one reason
            time.sleep(0.02)

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """SIGINT: connections are broken off; SIGQUIT: a crash, from which it recovers."""
        assert self._process is not None
        self._process.send_signal(sign)
        self._process.wait(_PATIENCE_S)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """Raises FileNotFoundError where PostgreSQL is not installed."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))  # the user postgres must be able to get there
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, _USER, _USER)
        making = [
            str(_bin() / "initdb"),
            "-D",
            str(folder / "data"),
            "-U",
            _USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-N",
        ]
        subprocess.run(making, check=True, stdout=subprocess.DEVNULL, **_as_user())
        server = PostgresServer(folder, free_port())
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def why_not() -> str | None:
    """Why there can be none here."""
    if not _HOMES:
        return "needs PostgreSQL: apt-get install postgresql"
    try:
        import psycopg  # noqa: F401
        import psycopg_pool  # noqa: F401
    except ImportError:
        return "needs psycopg: pip install '.[postgres]'"
    return None


def _bin() -> Path:
    return _HOMES[0]


def _as_user() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": _USER, "group": _USER, "extra_groups": []} if os.geteuid() == 0 else {}
