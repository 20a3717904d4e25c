"""Commands end as what they did, though nobody hears it, or somebody wants no more of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from core.vectors.edge_gate import copying
from tests.e2e.product import REPOSITORY, wait_for


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a product that has a secret, and else nothing."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jwt_secret").write_text("secret")
    return {**os.environ, "IMAGES_DIR": str(tmp_path / "images"), "DATA_DIR": str(tmp_path / "data")}


_MOVED = """\
import sys
from standalone.moves import command
sys.exit(command.run(lambda settings: "All of it", what="It was", broken_off="go on"))
"""


@pytest.mark.parametrize("command", [("-m", "standalone.backups", "take"), ("-c", _MOVED)])
def test_what_was_done_counts_though_nobody_reads_of_it(
    environment: dict[str, str], command: tuple[str, ...], tmp_path: Path
) -> None:
    target = [str(tmp_path / "backup")] if "take" in command else []
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        ended = subprocess.run(
            [sys.executable, *command, *target],
            cwd=REPOSITORY,
            env=environment,
            stdout=theirs,
            stderr=subprocess.PIPE,
            check=False,
        )
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (0, b"")


def test_a_backup_that_somebody_wants_no_more_of_ends_at_once_and_leaves_nothing(
    environment: dict[str, str], tmp_path: Path
) -> None:
    vectors = tmp_path / "data" / "vectors"
    (vectors / "clip").mkdir(parents=True)
    (vectors / "clip" / "edge_config.json").touch()
    (tmp_path / "backups").mkdir()
    with copying(vectors):
        child = subprocess.Popen(
            ("env", "--default-signal=INT", sys.executable, "-m", "standalone.backups", "take", tmp_path / "backups" / "one"),
            cwd=REPOSITORY,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            wait_for("a half-made backup", lambda: list(tmp_path.glob("backups/.one.*.part/vectors")), timeout_s=100)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=100)
        finally:
            child.kill()
            child.communicate()
    assert (child.returncode, out, err) == (130, b"", b"Broken off; run it again\n")
    assert not list((tmp_path / "backups").iterdir())
