"""Settings of the watcher."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from core.filenames import is_hidden
from core.replicas.addresses import ModelAddresses
from core.settings import FolderSettings
from watcher.queue.place import BrokerPlace, is_spoken, require_celery


class WatcherSettings(ModelAddresses, FolderSettings):
    """How the folder is watched and how hard it is worked."""

    port: int = Field(default=8002, ge=0, le=65535, description="port of the watcher's status and metrics")
    watch_mode: Literal["auto", "polling"] = Field(
        default="auto", description="`auto`: the system's file events; `polling`: for network drives, which send none"
    )
    poll_interval_s: float = Field(default=2.0, gt=0, description="pause between two looks of the polling observer")
    settle_s: float = Field(
        default=1.5, gt=0, description="quiet time after which a file is complete, where the system cannot tell who writes to it"
    )
    truncated_after_s: float = Field(
        default=10.0, gt=0, description="quiet time after which a file without its end-of-image marker is read as it is"
    )
    reconcile_interval_s: float = Field(
        default=300.0, gt=0, description="pause between two comparisons of folder, ledger and vectors"
    )
    vectors_check_interval_s: float = Field(
        default=86_400.0,
        gt=0,
        description="pause between two comparisons of the ledger with every point, beside those of their counts",
    )
    vectors_check_rate: float = Field(
        default=50_000.0, ge=0, description="points a second that such a comparison reads at most; `0`: as many as it can"
    )
    ingest_concurrency: int = Field(default=16, ge=1, le=64, description="pictures ingested at the same time")
    broker_url: str | None = Field(
        default=None,
        repr=False,
        description="a broker, `redis://...` or `amqp://...`: pictures are ingested by workers (`make worker`), any number of them, and no"
        " more by the watcher; needs `DATABASE_URL` and `QDRANT_URL`",
    )
    ingest_rate_per_s: float = Field(
        default=0.0, ge=0, description="with `BROKER_URL`: pictures a second that all workers together are given; `0`: no bound"
    )
    max_attempts: int = Field(default=4, ge=1, description="attempts that may go wrong before a picture is `failed`")
    retry_min_s: float = Field(default=1.0, gt=0, description="first pause before a picture is tried again; doubles each time")
    retry_max_s: float = Field(default=60.0, gt=0, description="longest pause before a picture is tried again")
    outage_retry_max_s: float = Field(
        default=5.0, gt=0, description="longest pause before an absent model service or Qdrant is tried again"
    )
    lease_s: float = Field(default=60.0, gt=0, description="time without a heartbeat after which a picture is taken up anew")
    orphan_grace_s: float = Field(
        default=2.0, ge=0, description="time in which a vanished picture may turn up elsewhere before it is forgotten"
    )
    accept_new_folder: bool = Field(
        default=False,
        description="the watched folder was replaced on purpose: forget pictures that are gone although it lies on another device",
    )

    @field_validator("broker_url")
    @classmethod
    def _spoken(cls, value: str | None) -> str | None:
        if value is not None and not is_spoken(value):
            raise ValueError(
                "write redis://:password@host:6379/0 or amqp://user:password@host:5672/vhost; what is odd in a password as %2F and the like"
            )
        return value

    @model_validator(mode="after")
    def _shared_state(self) -> Self:
        if self.broker_url is not None and (self.database_url is None or self.qdrant_url is None):
            raise ValueError("BROKER_URL needs DATABASE_URL and QDRANT_URL: workers share ledger and vectors")
        return self

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.images_url is not None:
            return self
        state, pictures = self.data_dir.resolve(), self.images_dir.resolve()
        if state.is_relative_to(pictures) and not is_hidden("/".join(state.relative_to(pictures).parts)):
            raise ValueError(
                "DATA_DIR lies in the watched folder (IMAGES_DIR), where thumbnails would be taken for pictures: name another one, or"
                f" one that is hidden, e.g. {self.images_dir / '.imagesearch'}"
            )
        return self

    @property
    def broker(self) -> BrokerPlace | None:
        """None: the watcher ingests. Raises QueueMissing."""
        if self.broker_url is None:
            return None
        require_celery()
        return BrokerPlace(self.broker_url, self.ingest_rate_per_s)


class WorkerSettings(WatcherSettings):
    """Of a process that does what the watcher sends to the broker."""

    port: int = Field(default=8003, ge=0, le=65535, description="port of a worker's health and metrics")
