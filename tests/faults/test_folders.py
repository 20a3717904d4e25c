"""The watched folder is read-only, closed, unmounted, empty in its place, or renamed away: nothing is taken for deleted."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.product import PYTHON_STANDALONE, wait_for
from tests.faults.disks import Disk, small_disk
from tests.faults.rig import Rig, some_picture

pytestmark = [pytest.mark.e2e, pytest.mark.serial]

_CAPABILITIES = "-dac_override,-dac_read_search"


@pytest.fixture
def drive(rig: Rig) -> Iterator[Disk]:
    """A drive with the pictures, which can be unmounted and comes back with all that is on it."""
    with small_disk(rig.root / "drive", megabytes=16) as disk, ExitStack() as stack:
        drive = _Drive(disk.place, rig.images)
        drive.plug_in()
        stack.callback(drive.pull_out)
        yield drive


class _Drive(Disk):
    def __init__(self, content: Path, place: Path) -> None:
        super().__init__(place)
        self._content = content

    def plug_in(self) -> None:
        subprocess.run(["mount", "--bind", self._content, self.place], check=True)

    def pull_out(self) -> None:
        if self.place.is_mount():
            self.unmount()


def _pictures(rig: Rig, rng: random.Random, count: int) -> None:
    for number in range(count):
        rig.add(f"folder/{number}.jpg", some_picture(rng))


def _reaches(rig: Rig, state: str) -> None:
    wait_for(state, lambda: rig.status()["watcher"]["state"] == state, timeout_s=20)


def _told(rig: Rig, event: str) -> int:
    return sum(line["event"] == event for line in rig.log_events())


def test_an_unmounted_folder_and_an_empty_one_in_its_place_are_not_ten_deleted_pictures(
    rig: Rig, rng: random.Random, drive: _Drive
) -> None:
    _pictures(rig, rng, 10)
    rig.start_and_wait()
    rig.agree()
    drive.pull_out()  # what is left is the empty folder that it was mounted on
    _reaches(rig, "folder_missing")
    assert rig.status()["images"]["indexed"] == 10
    assert len(rig.search("anything")["matches"]) == 10
    refused = rig.upload(some_picture(rng))  # else it would be out of sight when the drive comes back
    assert (refused.status_code, refused.json()["detail"]) == (503, "the watched folder is not there")
    rig.kill()
    rig.start_and_wait()  # nor at a start
    _reaches(rig, "folder_missing")
    assert rig.status()["images"]["indexed"] == 10
    assert _told(rig, "folder_missing") == 2
    drive.plug_in()
    _reaches(rig, "watching")
    (rig.images / "folder" / "0.jpg").unlink()
    rig.add("folder/new.jpg", some_picture(rng))
    rig.agree()
    assert rig.status()["images"]["indexed"] == 10
    assert _told(rig, "image_removed") == 1


@pytest.mark.long
def test_a_folder_that_is_renamed_away_and_back_keeps_everything(rig: Rig, rng: random.Random) -> None:
    _pictures(rig, rng, 5)
    rig.start_and_wait()
    rig.agree()
    for _ in range(2):
        rig.images.rename(rig.root / "away")
        _reaches(rig, "folder_missing")
        refused = rig.upload(some_picture(rng))
        assert (refused.status_code, refused.json()["detail"]) == (503, "the watched folder is not there")
        (rig.root / "away").rename(rig.images)
        _reaches(rig, "watching")
        rig.agree()
    assert (_told(rig, "folder_missing"), _told(rig, "folder_returned"), _told(rig, "image_removed")) == (2, 2, 0)


def test_a_read_only_folder_is_searched_and_refuses_what_would_change_it(rig: Rig, rng: random.Random) -> None:
    with small_disk(rig.images, megabytes=16) as disk:
        _pictures(rig, rng, 5)
        disk.set_read_only(True)
        rig.start_and_wait()
        rig.agree()
        matches = rig.search("anything")["matches"]
        assert rig.http.get(matches[0]["thumbnail_url"]).status_code == 200
        assert rig.upload(some_picture(rng)).status_code == 503
        deleted = rig.http.delete(f"/api/v1/images/{matches[0]['image_id']}")
        assert (deleted.status_code, deleted.json()["detail"]) == (503, "the folder does not let its files be removed")
        rig.agree()
        disk.set_read_only(False)
        assert rig.upload(some_picture(rng)).status_code == 202
        assert rig.http.delete(f"/api/v1/images/{matches[0]['image_id']}").status_code == 204
        rig.agree()
        assert rig.status()["images"]["indexed"] == 5
        rig.kill()


@pytest.fixture
def unprivileged() -> tuple[str, ...]:
    """A command that starts the product bound by permissions even as root."""
    if os.getuid() != 0:
        return PYTHON_STANDALONE
    bound = ("setpriv", "--bounding-set", _CAPABILITIES, "--inh-caps", _CAPABILITIES)
    if shutil.which("setpriv") is None or subprocess.run((*bound, "true"), check=False, capture_output=True).returncode:
        pytest.skip("root is not bound by permissions here, and cannot give up that it is not")
    return (*bound, *PYTHON_STANDALONE)


def test_files_and_folders_that_are_closed_to_us_are_listed_kept_and_taken_up_again(
    rig: Rig, rng: random.Random, unprivileged: tuple[str, ...]
) -> None:
    for number in range(6):
        rig.add(f"{'open' if number < 3 else 'closed'}/{number}.jpg", some_picture(rng))
    rig.start_and_wait(unprivileged)
    rig.agree()
    secret = rig.images / "open" / "secret.jpg"
    secret.touch(mode=0o000)
    secret.write_bytes(some_picture(rng))
    (rig.images / "open" / "0.jpg").chmod(0o000)
    closed = rig.images / "closed"
    closed.chmod(0o000)

    def refused() -> dict[str, str]:
        listed = rig.http.get("/api/v1/failures").json()["failures"]
        return {failure["path"]: failure["reason"] for failure in listed}

    wait_for("word of it", lambda: refused() == {"open/secret.jpg": "permission_denied"}, timeout_s=20)
    passes = rig.status()["watcher"]["last_reconcile_at"]
    wait_for("another comparison", lambda: rig.status()["watcher"]["last_reconcile_at"] != passes, timeout_s=20)
    assert rig.status()["images"]["indexed"] == 6, "what cannot be looked at is not gone"
    assert _told(rig, "image_removed") == 0
    for path in (closed, secret, rig.images / "open" / "0.jpg"):
        path.chmod(0o700)
    wait_for("all seven", lambda: rig.status()["images"]["indexed"] == 7, timeout_s=20)
    rig.agree()
    assert refused() == {}
