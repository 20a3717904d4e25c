"""Where the broker is. Imports nothing of it: a start without BROKER_URL needs no package for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from urllib.parse import urlsplit

from core.errors import ImageSearchError

SCHEMES = ("redis://", "rediss://", "amqp://", "amqps://")


class QueueMissing(ImageSearchError):
    """BROKER_URL is set, and the package that speaks to the broker is not installed."""


@dataclass(frozen=True, slots=True)
class BrokerPlace:
    """`url` holds a password, and is shown to nobody. `rate_per_s` is that of all workers together; 0: as many as they can."""

    url: str = field(repr=False)
    rate_per_s: float = 0.0

    @property
    def is_redis(self) -> bool:
        return self.url.startswith("redis")


def is_spoken(url: str) -> bool:
    """Whether it is the address of a broker of ours. A password with an odd character tears a URL apart."""
    try:
        parts = urlsplit(url)
        return url.startswith(SCHEMES) and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def require_celery() -> None:
    """Raises QueueMissing."""
    if find_spec("celery") is None:
        raise QueueMissing("BROKER_URL is set, and celery not installed: pip install '.[queue]', or make build")
