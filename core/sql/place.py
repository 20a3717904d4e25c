"""Where PostgreSQL is, and how it is spoken to. Imports nothing of it: a start without DATABASE_URL needs no package for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec

from core.errors import ImageSearchError

SCHEMES = ("postgresql://", "postgres://")


class DriverMissing(ImageSearchError):
    """DATABASE_URL is set, and the package that speaks to PostgreSQL is not installed."""


@dataclass(frozen=True, slots=True)
class DatabasePlace:
    """`url` holds a password, and is shown to nobody. `connections` are those of one process for one purpose."""

    url: str = field(repr=False)
    connections: int = 4
    timeout_s: float = 30.0
    connect_timeout_s: float = 5.0


def require_driver() -> None:
    """Raises DriverMissing."""
    missing = [package for package in ("psycopg", "psycopg_pool") if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise DriverMissing(
            f"DATABASE_URL needs {' and '.join(missing)}, which {verb} not installed: pip install '.[postgres]', or make build"
        )
