"""The same running search service that its unit tests use."""

from __future__ import annotations

from tests.unit.searchsvc.conftest import make_world, world

__all__ = ["make_world", "world"]
