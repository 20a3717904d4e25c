"""What a lean installation leaves out, and how it is had: asked for before anything is fetched, and told instead of a failed import."""

from __future__ import annotations

from importlib.util import find_spec

HOW_TO_INSTALL = "pip install '.[model]', or make build"


class NotInstalled(Exception):
    """Libraries of the extra `model` are wanted and not here; `str` names them and says how they are had."""


def require(*packages: str) -> None:
    """Raises NotInstalled. Imports nothing."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise NotInstalled(f"it needs {' and '.join(missing)}, which {verb} not installed: {HOW_TO_INSTALL}")
