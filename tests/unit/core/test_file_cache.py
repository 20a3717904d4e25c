from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.file_cache import FileCache


def used(folder: Path, name: str, at_s: float) -> None:
    os.utime(folder / name[:2] / name, (at_s, at_s))


def held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_what_was_kept_comes_back_also_in_the_next_process(tmp_path: Path) -> None:
    FileCache(tmp_path, max_bytes=1000).keep("aa-1.webp", b"thumbnail")

    assert FileCache(tmp_path, max_bytes=1000).get("aa-1.webp") == b"thumbnail"
    assert FileCache(tmp_path, max_bytes=1000).get("aa-2.webp") is None


def test_it_never_holds_more_than_its_bound_and_lets_go_what_was_used_least_lately(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=1000)
    for n in range(10):
        cache.keep(f"{n}{n}", bytes(100))
        used(tmp_path, f"{n}{n}", at_s=1_000_000 + n)
    assert cache.get("00") == bytes(100)  # the oldest, used just now

    cache.keep("xx", bytes(100))

    assert held(tmp_path) <= 1000
    assert cache.get("00") is not None
    assert cache.get("11") is None
    assert cache.get("99") is not None
    assert cache.get("xx") is not None


def test_what_an_earlier_process_left_counts_too(tmp_path: Path) -> None:
    (tmp_path / "zz").mkdir()
    (tmp_path / "zz" / ".half-written.0123").write_bytes(bytes(900))
    os.utime(tmp_path / "zz" / ".half-written.0123", (1.0, 1.0))
    cache = FileCache(tmp_path, max_bytes=1000)

    cache.keep("aa", bytes(200))

    assert held(tmp_path) == 200


def test_many_threads_keep_the_bound(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=5_000)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: cache.keep(f"{n:03}", bytes(100)), range(300)))

    assert 0 < held(tmp_path) <= 5_000


def test_a_forgotten_file_is_gone_and_forgetting_twice_is_no_error(tmp_path: Path) -> None:
    cache = FileCache(tmp_path, max_bytes=1000)
    cache.keep("aa", b"x")

    cache.forget("aa")
    cache.forget("aa")

    assert cache.get("aa") is None


def test_what_is_kept_open_is_whole_though_it_is_cleared_away_while_it_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, other = FileCache(tmp_path, max_bytes=1000), FileCache(tmp_path, max_bytes=1)
    file = cache.keep_open("aa", b"picture")
    assert file is not None
    other.keep("bb", b"")
    with file:
        assert file.read() == b"picture"
    assert cache.get("aa") is None
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "no room")))
    assert cache.keep_open("cc", b"picture") is None
    assert held(tmp_path) == 0


def test_a_folder_that_cannot_be_written_costs_a_line_in_the_log_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = FileCache(tmp_path / "file", max_bytes=1000)

    cache.keep("aa", b"x")

    assert cache.get("aa") is None
    assert "file_unkept" in capsys.readouterr().out
