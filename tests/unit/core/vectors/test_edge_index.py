"""The processes that build an index or look a shard through outlive nobody who wanted that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NOBODY = "1234567890"


@pytest.mark.parametrize(
    ("module", "asked"),
    [
        ("edge_index", ("source", "target", "4", "off", "False", _NOBODY)),
        ("edge_audit", ("check", "source", _NOBODY)),
        ("edge_audit", ("rescue", "source", _NOBODY, "target", "off", "False")),
    ],
)
def test_it_ends_at_once_if_whoever_wanted_it_has_ended_while_it_started(
    tmp_path: Path, module: str, asked: tuple[str, ...]
) -> None:
    """Else the next start meets it at work: the engine lets one process in, and what cannot be opened counts as damaged."""
    places = [str(tmp_path / one) if one in {"source", "target"} else one for one in asked]
    command = [sys.executable, "-m", f"core.vectors.{module}", *places]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 1
    assert "has ended" in ended.stderr
    assert list(tmp_path.iterdir()) == []
