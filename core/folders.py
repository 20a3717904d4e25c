"""Folders as people write them into settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _from_home(folder: Path) -> Path:
    """With `~` spelled out: few shells do that behind the `=` of `make run IMAGES_DIR=~/Pictures`."""
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


FolderPath = Annotated[Path, AfterValidator(_from_home)]
