"""The Chromium that tests of the page look with."""

from __future__ import annotations

import shutil

import pytest

QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""Arguments with which it asks nothing of anybody but the page's own service."""

PATIENCE_MS = 20_000
"""For what a page comes to show: other tests run meanwhile, on two cores."""


def chromium() -> str:
    """Its path. Skips the test where there is none."""
    program = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium on the PATH")
    return program
