"""Variables that are nearly settings: `IMAGE_DIR` would be passed over in silence, and another folder be watched."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from pydantic_settings import BaseSettings

_ALIKE = 0.9
"""A letter more, less or other in names of eight and more; `HOSTS` and `PORTS` are left alone."""


def misspelt(variables: Collection[str], settings: Iterable[type[BaseSettings]]) -> dict[str, str]:
    """Of the names of `variables` those that no setting has, with the setting that is probably meant and is not set itself."""
    known = {field.upper() for each in settings for field in each.model_fields}
    meant = {
        name: get_close_matches(name, known.difference(variables), n=1, cutoff=_ALIKE) for name in variables if name not in known
    }
    return {name: near[0] for name, near in meant.items() if near}
