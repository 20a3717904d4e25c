"""Where the model services are, as the settings of their callers name them."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from core.settings import ServiceSettings, parts

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from core.ports import Embedder


class ModelAddresses(ServiceSettings):
    """Of `WatcherSettings` and `SearchSettings`."""

    model_url: str = Field(default="http://127.0.0.1:8001", description="the model service")
    model_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated: several model services, to balance over; `MODEL_URL`, where it is set, is one of them. Unused standalone",
    )

    @field_validator("model_urls", mode="before")
    @classmethod
    def _addresses(cls, value: object) -> object:
        return parts(value) if isinstance(value, str) else value

    @field_validator("model_urls")
    @classmethod
    def _reachable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(_is_address, value)):
            raise ValueError("write each address as http://host:port")
        return value

    @property
    def model_services(self) -> tuple[str, ...]:
        """Each once."""
        alone = (self.model_url,) if "model_url" in self.model_fields_set or not self.model_urls else ()
        return tuple(dict.fromkeys(url.rstrip("/") for url in (*alone, *self.model_urls)))


def _is_address(url: str) -> bool:
    try:
        address = urlsplit(url)
        return address.scheme in {"http", "https"} and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number, or half an IPv6 address
        return False


def embedder_at(services: tuple[str, ...], registry: CollectorRegistry) -> AbstractAsyncContextManager[Embedder]:
    """A plain client for one service, which leaves the balancing to whatever stands before it; else a balancing one, with metrics."""
    from core.model_client import ModelClient  # noqa: PLC0415 - aiohttp, which those who read settings alone do not need

    if len(services) == 1:
        return ModelClient(services[0])
    from core.replicas.metrics import ReplicaMetrics  # noqa: PLC0415 - as above
    from core.replicas.models import ReplicatedModels  # noqa: PLC0415

    return ReplicatedModels(services, metrics=ReplicaMetrics(registry))
