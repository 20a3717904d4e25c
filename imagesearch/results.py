"""What the client answers with beside the service's own wire models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.schemas import ImageState


@dataclass(frozen=True, slots=True)
class Added:
    """One file that was to be added, and how far it came."""

    path: Path
    image_id: str | None
    """None where the service refused the file, or it could not be read."""
    state: ImageState
    reason: str | None = None
    """Why it failed: a reason code, as of `/api/v1/failures`, or `unreadable`."""
    detail: str | None = None

    @property
    def failed(self) -> bool:
        return self.state is ImageState.FAILED

    @property
    def ended(self) -> bool:
        return self.state in {ImageState.INDEXED, ImageState.FAILED}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an `add` is; `latest` is what has just changed."""

    total: int
    sent: int
    indexed: int
    failed: int
    latest: Added


OnProgress = Callable[[Progress], None]
