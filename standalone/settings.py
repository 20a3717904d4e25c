"""What only the standalone adds; the settings of the three services hold here as well."""

from __future__ import annotations

from pydantic import Field

from core.settings import ServiceSettings


class StandaloneSettings(ServiceSettings):
    """Where the process tree listens."""

    port: int = Field(default=3000, ge=0, le=65535, description="port of the page and the API")
    model_port: int = Field(
        default=8001, ge=0, le=65535, description="loopback port of the model service; a free one is taken where it is in use"
    )
    watcher_port: int = Field(
        default=8002, ge=0, le=65535, description="loopback port of the watcher's status; a free one is taken where it is in use"
    )
    no_progress: bool = Field(default=False, description="never draw the progress line on the terminal")
