"""The process that builds an index."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_it_ends_at_once_if_whoever_wanted_it_has_ended_while_it_started(tmp_path: Path) -> None:
    asked = [str(tmp_path / "source"), str(tmp_path / "target"), "4", "off", "False", "1234567890"]
    ended = subprocess.run(
        [sys.executable, "-m", "core.vectors.edge_index", *asked], check=False, capture_output=True, text=True, timeout=30
    )
    assert ended.returncode == 1
    assert "has ended" in ended.stderr
    assert list(tmp_path.iterdir()) == []
