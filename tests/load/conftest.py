"""The small weights of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import weights

__all__ = ["weights"]
