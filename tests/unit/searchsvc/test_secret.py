"""The key of the tokens: given, or made once and kept."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from searchsvc.secret import jwt_key


def test_a_given_secret_is_the_key_and_nothing_is_kept(tmp_path: Path) -> None:
    assert jwt_key("given secret", tmp_path / "state") == b"given secret"
    assert not (tmp_path / "state").exists()


def test_a_secret_is_made_once_for_the_owner_alone(tmp_path: Path) -> None:
    first = jwt_key(None, tmp_path / "state")
    assert len(first) == 64
    assert jwt_key(None, tmp_path / "state") == first
    assert stat.S_IMODE((tmp_path / "state" / "jwt_secret").stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["jwt_secret"]


def test_processes_that_start_together_agree_on_one_secret(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: jwt_key(None, tmp_path), range(32)))
    assert len(keys) == 1


def test_an_empty_file_left_by_a_power_cut_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "jwt_secret").write_text("\n")
    assert len(jwt_key(None, tmp_path)) == 64


def test_a_secret_that_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "jwt_secret"
    path.write_text("a" * 64)
    path.chmod(0o644)
    assert jwt_key(None, tmp_path) == b"a" * 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
