"""Writes docs/reference/settings.md from the settings classes: `python -m docs.settings_table > docs/reference/settings.md`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, NamedTuple, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from model_service.settings import ModelSettings
from searchsvc.settings import SearchSettings
from standalone.settings import StandaloneSettings
from watcher.settings import WatcherSettings, WorkerSettings

SETTINGS: dict[str, type[BaseSettings]] = {
    "searchsvc": SearchSettings,
    "watcher": WatcherSettings,
    "worker": WorkerSettings,
    "model_service": ModelSettings,
    "standalone": StandaloneSettings,
}

_HEAD = """\
# Settings

Every setting is an environment variable. They are read once, when a process starts, and checked: a value that cannot be is said, and
nothing starts. An empty value counts as unset. Standalone (`make run`), all of them hold in the one process tree; composed, each service
reads its own. No setting is read from a file; `docker compose` puts those of an `.env` file into the environment.
A `~` at the beginning of a folder is the home of who runs it.

This table is made from the settings classes by `python -m docs.settings_table`; a test fails when the two differ.

| variable | default | read by | meaning |
| --- | --- | --- | --- |
"""


class Row(NamedTuple):
    variable: str
    default: str
    meaning: str


def table() -> str:
    """The whole page."""
    readers: dict[Row, list[str]] = {}
    for service, settings in SETTINGS.items():
        for name, field in settings.model_fields.items():
            readers.setdefault(_row(name, field), []).append(service)
    lines = [f"| `{row.variable}` | {row.default} | {_named(services)} | {row.meaning} |" for row, services in readers.items()]
    return _HEAD + "\n".join(sorted(lines)) + "\n"


def _row(name: str, field: FieldInfo) -> Row:
    meaning = field.description or ""
    if get_origin(field.annotation) is Literal:
        choices = [f"`{choice}`" for choice in get_args(field.annotation)]
        meaning = f"{meaning}; one of {', '.join(choices)}"
    return Row(name.upper(), _shown(field.get_default(call_default_factory=True, validated_data={})), meaning.replace("|", "\\|"))


def _shown(default: object) -> str:
    if default is None or default == ():
        return "unset"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, float) and default.is_integer():
        return f"`{int(default)}`"
    return f"`{default.as_posix() if isinstance(default, Path) else default}`"


def _named(services: list[str]) -> str:
    return "all" if len(services) == len(SETTINGS) else ", ".join(services)


if __name__ == "__main__":
    sys.stdout.write(table())
