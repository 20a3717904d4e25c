"""Settings that every service has. Values come from the environment, are checked once in `__main__`, and are passed in as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from core.folders import FolderPath
from core.images.settings import ImageSettings
from core.sql.place import SCHEMES, DatabasePlace, require_driver
from core.vectors.storage import ClusterLayout, Quantization, ReadConsistency, VectorStorage


def parts(value: str) -> tuple[str, ...]:
    """What stands between the commas."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def faults_of(error: ValidationError) -> str:
    """What is wrong with which variable, a line each, for whoever set it."""
    faults = [(".".join(map(str, fault["loc"])).upper(), fault["msg"].removeprefix("Value error, ")) for fault in error.errors()]
    return "\n".join(f"  {variable}: {what}" if variable else f"  {what}" for variable, what in faults)


class ServiceSettings(BaseSettings):
    """Base of `ModelSettings`, `WatcherSettings` and `SearchSettings`; each field is one row of docs/reference/settings.md."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        protected_namespaces=(),
        hide_input_in_errors=True,  # it may be a secret, and the error goes to a terminal or a log
    )

    host: str = Field(default="127.0.0.1", description="address to listen on; beyond loopback, writing needs `API_KEYS`")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated names by which the service may be called besides its own, e.g. `photos.example.org` or"
        " `*.example.org`, as behind a proxy; `*`: any",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="least severe log event to print")
    log_format: Literal["auto", "console", "json"] = Field(default="auto", description="`auto`: console on a terminal, else JSON")
    shutdown_grace_s: float = Field(
        default=8.0, gt=0, le=60, description="time for work in flight to end after SIGTERM or Ctrl-C"
    )

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return parts(value) if isinstance(value, str) else value

    @field_validator("log_level", "log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class PictureSettings(ServiceSettings):
    """For the services that decode pictures."""

    max_image_bytes: int = Field(default=64 * 2**20, gt=0, description="larger files are refused (`too_many_bytes`, HTTP 413)")
    max_image_pixels: int = Field(
        default=150_000_000, gt=0, description="larger pictures are not decoded (`too_many_pixels`, HTTP 422)"
    )
    decode_isolation: bool = Field(
        default=True,
        description="decode in processes of their own, which can crash alone; `false`: in the service itself, without a limit",
    )
    decode_timeout_s: float = Field(default=20.0, gt=0, description="processor time that one picture may take (`too_slow`)")
    decode_memory_bytes: int = Field(
        default=2 * 2**30, ge=2**28, description="memory that decoding one picture may take (`too_many_pixels`)"
    )


class FolderSettings(ImageSettings, PictureSettings):
    """For the services that touch the pictures and the durable state."""

    data_dir: FolderPath = Field(default=Path("data"), description="ledger, vectors, feedback, thumbnails, secret")

    database_url: str | None = Field(
        default=None,
        repr=False,
        description="a PostgreSQL database for ledger and feedback, so that several machines share them, e.g."
        " `postgresql://user:password@host/imagesearch`; unset: SQLite in `DATA_DIR`",
    )
    database_connections: int = Field(
        default=4, ge=1, le=64, description="connections to it of one process for each of the two; a watcher holds two more"
    )
    database_timeout_s: float = Field(default=30.0, gt=0, description="longest time of one statement there")
    database_connect_timeout_s: float = Field(default=5.0, gt=0, description="longest time until such a connection is there")

    vectors_quantization: Quantization = Field(
        default="off",
        description="`scalar` (a byte a number) or `binary` (a bit): a short form that an index is searched by, for large sets",
    )
    vectors_on_disk: bool = Field(default=False, description="leave the vectors on the disk, for sets that memory cannot hold")
    qdrant_url: str | None = Field(
        default=None,
        description="a Qdrant server, e.g. `http://qdrant:6333`, or the nodes of a cluster, separated by commas; unset: Qdrant embedded"
        " in `DATA_DIR`",
    )
    qdrant_api_key: str | None = Field(default=None, description="key of that server", repr=False)
    qdrant_prefer_grpc: bool = Field(default=True, description="use gRPC (port 6334) where the server offers it, else REST")
    qdrant_timeout_s: float = Field(default=10.0, gt=0, description="time-out of one call to that server")
    qdrant_write_patience_s: float = Field(
        default=20.0, ge=0, description="how long a write is tried again while that server, or a node of it, is away"
    )
    qdrant_shards: int | None = Field(
        default=None,
        ge=1,
        description="shards of a collection that is made from now on; unset: as the server has it (one a node)",
    )
    qdrant_replicas: int | None = Field(
        default=None, ge=1, description="nodes that hold each shard of such a collection; unset: as the server has it"
    )
    qdrant_write_consistency: int | None = Field(
        default=None, ge=1, description="of them, those that must have a write before it counts; unset: as the server has it"
    )
    qdrant_read_consistency: ReadConsistency | None = Field(
        default=None,
        description="replicas that a read asks: a number, `majority`, `quorum` or `all`; unset: one, which is quickest",
    )
    qdrant_payload_on_disk: bool = Field(
        default=True, description="leave the payloads of such a collection on the disk; what is filtered by is in memory anyway"
    )

    @field_validator("database_url")
    @classmethod
    def _postgres(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(SCHEMES):
            raise ValueError("write postgresql://user:password@host:5432/database")
        return value

    @property
    def database(self) -> DatabasePlace | None:
        """None: SQLite. Raises DriverMissing."""
        if self.database_url is None:
            return None
        require_driver()
        return DatabasePlace(
            self.database_url, self.database_connections, self.database_timeout_s, self.database_connect_timeout_s
        )

    @property
    def vector_storage(self) -> VectorStorage:
        return VectorStorage(self.vectors_quantization, self.vectors_on_disk)

    @property
    def cluster_layout(self) -> ClusterLayout:
        return ClusterLayout(
            shards=self.qdrant_shards,
            replicas=self.qdrant_replicas,
            write_consistency=self.qdrant_write_consistency,
            payload_on_disk=self.qdrant_payload_on_disk,
        )
