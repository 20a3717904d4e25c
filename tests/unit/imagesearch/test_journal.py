"""The journal of a backfill where its disk is full, or its file is no journal."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from imagesearch.backfill.journal import Journal, UnusableJournal
from imagesearch.backfill.rows import Batch, Kind, Row
from imagesearch.command.exits import Exit
from tests.unit.imagesearch.test_backfill import Service as SearchService
from tests.unit.imagesearch.test_backfill import backfill, memory, report_of, service

__all__ = ["memory", "service"]


def filled(path: Path, rows: int = 500) -> None:
    with Journal(path, "mine") as journal:
        journal.take_in(Batch([Row(Kind.FILE, f"/pictures/{n}.png") for n in range(rows)], str(rows)))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def garble(path: Path) -> None:
    path.write_bytes(b"no journal at all" * 100)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("harm", [cut, garble, replace_by_folder])
async def test_a_journal_that_cannot_be_used_is_named_and_kept(
    service: SearchService, tmp_path: Path, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    filled(path)
    harm(path)
    (tmp_path / "a.csv").write_text("path\nmissing.png\n")
    assert await backfill(service, tmp_path / "a.csv", "--state", path.parent) == Exit.USAGE
    assert f"imagesearch: {path}: " in capsys.readouterr().err
    assert path.exists()


def fill_up(journal: Journal) -> None:
    (pages,) = journal._sql.execute("PRAGMA page_count").fetchone()
    journal._sql.execute(f"PRAGMA max_page_count = {pages}")


def take_in_beyond_the_room(path: Path) -> None:
    with Journal(path, "mine") as journal:
        fill_up(journal)
        journal.take_in(Batch([Row(Kind.FILE, f"/pictures/{n}.png") for n in range(5000)], "5500"))


def test_a_full_disk_is_told_as_such_and_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    filled(path)
    with pytest.raises(UnusableJournal, match="full"):
        take_in_beyond_the_room(path)
    with Journal(path, "mine") as journal:
        assert (journal.cursor, journal.count("rows"), journal.left()) == ("500", 500, {"waiting": 500})


async def test_a_disk_that_fills_up_under_a_backfill_ends_it_and_a_later_one_goes_on(
    service: SearchService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Journal._open

    def bounded(journal: Journal) -> None:
        opened(journal)
        fill_up(journal)

    manifest = tmp_path / "a.csv"
    manifest.write_text("path\n" + "".join(f"{'missing' * 20}-{n}.png\n" for n in range(2000)))
    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_open", bounded)
        assert await backfill(service, manifest) == Exit.USAGE
    assert "full" in capsys.readouterr().err
    assert await backfill(service, manifest) == Exit.NOTHING
    assert report_of(tmp_path / "a.csv.backfill")["reasons"] == {"missing": 2000}
