"""What a backup holds: written last, so that a folder without one is no backup."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import ImageSearchError
from core.filenames import from_text, to_text

MANIFEST = "manifest.json"


class BackupUnusable(ImageSearchError):
    """The backup is damaged, incomplete, or not for this release or machine; nothing was touched."""


class FileRecord(BaseModel):
    model_config = ConfigDict(frozen=True)

    bytes: int
    sha256: str


class Manifest(BaseModel):
    """Names are relative to the backup's folder, as `core.filenames` writes them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    product: str = Field(description="version that made it")
    made_at: datetime
    vectors: Literal["edge", "server", "none"]
    images: int | None = Field(description="indexed ones in the ledger; None without a ledger")
    ratings: int | None = Field(description="None without feedback")
    points: dict[str, int] = Field(description="by collection")
    pictures: int | None = Field(description="files of the watched folder; None where they were left out")
    files: dict[str, FileRecord]


def record_of(folder: Path) -> dict[str, FileRecord]:
    """All files in a folder, but for the manifest."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {to_text(str(path.relative_to(folder))): _record(path) for path in found}


def checked(folder: Path) -> Manifest:
    """The manifest of a backup whose files are all there, and as they were. Raises BackupUnusable."""
    try:
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise BackupUnusable(f"{folder} holds no backup: there is no {MANIFEST}") from None
    except (OSError, ValidationError) as error:
        raise BackupUnusable(f"the {MANIFEST} in {folder} cannot be read, or is from a newer release") from error
    for name, record in manifest.files.items():
        path = (folder / from_text(name)).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise BackupUnusable(f"the backup names a file outside of it: {name}")
        try:
            is_whole = path.stat().st_size == record.bytes and _record(path) == record
        except OSError as error:
            raise BackupUnusable(f"the backup lacks {name}") from error
        if not is_whole:
            raise BackupUnusable(f"the backup is damaged: {name} is not as it was")
    return manifest


def _record(path: Path) -> FileRecord:
    with path.open("rb") as file:
        return FileRecord(bytes=path.stat().st_size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
