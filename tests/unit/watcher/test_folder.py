"""Names, walks, mounts and looks at real files."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InvalidRequest
from core.filenames import from_text, is_hidden, to_text
from watcher import mounts, probe
from watcher.folder import Folder, is_temporary
from watcher.probe import Absence, Seen
from watcher.stability import Writing


@given(st.binary(min_size=1, max_size=12) | st.text("\uef80\uefff\uee00é%a").map(str.encode))
def test_any_name_becomes_storable_text_and_comes_back(name: bytes) -> None:
    text = to_text(os.fsdecode(name))
    text.encode("utf-8")
    assert os.fsencode(from_text(text)) == name


@given(st.binary(min_size=1, max_size=4), st.binary(min_size=1, max_size=4))
def test_two_names_never_share_a_text(one: bytes, other: bytes) -> None:
    assert (to_text(os.fsdecode(one)) == to_text(os.fsdecode(other))) == (one == other)


@pytest.mark.parametrize("path", [".a.jpg", ".git/a.jpg", "x/.cache/a.jpg", "~$doc.jpg"])
def test_hidden_is_what_or_whose_folder_is_hidden(path: str) -> None:
    assert is_hidden(path)
    assert not is_hidden("x/a.jpg")


@pytest.mark.parametrize("path", ["a.jpg.part", "a.CRDOWNLOAD", "x/a.tmp", "a.partial", "a.download", "a.jpg~"])
def test_temporary_is_what_is_named_so(path: str) -> None:
    assert is_temporary(path)
    assert not is_temporary("tmp/a.jpg")


@pytest.mark.parametrize("path", ["../x.jpg", "/etc/passwd", "a//b.jpg", "", "a/../b.jpg", "./a.jpg", "a\x00b", "link/x.jpg"])
def test_a_path_from_outside_must_stay_within_the_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "link").symlink_to(tmp_path)
    with pytest.raises(InvalidRequest):
        Folder(tmp_path / "images").checked(path)


def test_a_walk_follows_links_to_files_but_not_to_folders(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "o.jpg").write_bytes(b"o")
    root = tmp_path / "images"
    (root / "sub" / ".hidden").mkdir(parents=True)
    (root / "sub" / "a.jpg").write_bytes(b"a")
    (root / "sub" / ".hidden" / "b.jpg").write_bytes(b"b")
    (root / "file link.jpg").symlink_to(tmp_path / "outside" / "o.jpg")
    (root / "folder link").symlink_to(tmp_path / "outside")
    (root / "loop").symlink_to(root)
    (root / "broken").symlink_to(root / "nothing")
    batches = list(Folder(root).walk(batch=1))
    assert sorted(path for batch in batches for path, _ in batch.files) == ["file link.jpg", "sub/a.jpg"]
    assert batches[0].mounts == {"": root.stat().st_dev}


def test_a_file_open_for_writing_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    file.write_bytes(b"\xff\xd8\xff x \xff\xd9")
    leases = probe.leases_work(tmp_path)
    if not leases(tmp_path.stat().st_dev):
        pytest.skip("no leases on this file system")
    seen = probe.look(file, now=time.time(), leases=leases)
    assert isinstance(seen, Seen)
    assert (seen.writing, seen.complete, seen.image) == (Writing.CLOSED, True, True)
    with file.open("ab"):
        seen = probe.look(file, now=time.time(), leases=leases)
        assert isinstance(seen, Seen)
        assert seen.writing is Writing.OPEN


def test_a_pipe_is_odd_and_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert probe.stat_file(tmp_path / "pipe.jpg") is Absence.ODD
    assert probe.look(tmp_path / "pipe.jpg", now=0, leases=lambda _: True) is Absence.ODD
    assert probe.stat_file(tmp_path / "nothing") is Absence.GONE
    assert probe.stat_file(tmp_path) is Absence.FOLDER


def test_a_mount_is_lost_when_it_is_gone_or_another_device_without_any_known_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    device = tmp_path.stat().st_dev
    assert not mounts.is_lost(folder, "", device, ["a.jpg"])  # every file deleted, on the same device
    assert mounts.is_lost(folder, "", device + 1, ["a.jpg"])
    assert mounts.is_lost(folder, "nas", device, ["nas/a.jpg"])
    assert not mounts.is_lost(folder, "", device + 1, [])
    (tmp_path / "a.jpg").write_bytes(b"")
    assert not mounts.is_lost(folder, "", device + 1, ["gone.jpg", "a.jpg"])
    assert mounts.is_below("nas/x.jpg", {"nas"})
    assert not mounts.is_below("nasty/x.jpg", {"nas"})
