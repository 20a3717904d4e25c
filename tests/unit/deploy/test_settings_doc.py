"""The settings page is the classes' own words, so it cannot be wrong about them."""

from __future__ import annotations

from pathlib import Path

import pytest

from docs.settings_table import SETTINGS, table

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "settings.md"


@pytest.mark.parametrize("service", SETTINGS)
def test_every_field_says_what_it_means(service: str) -> None:
    silent = [name for name, field in SETTINGS[service].model_fields.items() if not field.description]
    assert silent == []


@pytest.mark.parametrize("service", SETTINGS)
def test_every_field_has_a_row(service: str) -> None:
    page = PAGE.read_text()
    missing = [name for name in SETTINGS[service].model_fields if f"| `{name.upper()}` |" not in page]
    assert missing == []


def test_no_row_is_stale() -> None:
    assert PAGE.read_text() == table(), "run: python -m docs.settings_table > docs/reference/settings.md"
