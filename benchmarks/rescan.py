"""How long comparing an unchanged folder with the ledger takes, and what memory it wants.

python -m benchmarks.rescan [--files 100000] [--times 3]
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import facts
from benchmarks.rows import HEAD, Row
from core.errors import Reason
from watcher import locations, views
from watcher.folder import Folder
from watcher.intake import Intake, IntakeEvents
from watcher.ledger import FileLedger, Ledger
from watcher.locations import Admission
from watcher.scanner import Scanner
from watcher.stability import SettleRules
from watcher.watched_folder import WatchedFolder

_FILES_A_FOLDER = 200
_STATUS = Path("/proc/self/status")
_RESET_PEAK = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Scan:
    """Of one scan; the processor time is that of the whole process, system calls included."""

    seconds: float
    cpu_s: float
    peak_growth_mib: float


def rows(folder: Path, *, files: int = 100_000, times: int = 3) -> list[Row]:
    """A re-scan by the watcher's own scanner over real files, which the ledger knows."""
    scans = asyncio.run(_scans(folder, files, times))
    best = min(scans, key=lambda scan: scan.seconds)
    return [
        Row(
            f"re-scan of {files:,} unchanged files",
            best.seconds,
            5.0 * files / 100_000,
            "lower",
            "s",
            {"seconds": " ".join(f"{scan.seconds:.1f}" for scan in scans), "cpu_s": min(scan.cpu_s for scan in scans)},
            "By stat alone; the best scan counts.",
        ),
        Row(
            f"memory that a re-scan of {files:,} files wants",
            max(scan.peak_growth_mib for scan in scans[1:]),
            16.0,
            "lower",
            "MiB",
        ),
    ]


async def _scans(place: Path, files: int, times: int) -> list[Scan]:
    """After one that is not told of: it finds the file system's cache cold."""
    folder = Folder(place / "images")
    _lay_files(folder.root, files)
    async with FileLedger(place / "data") as ledger:
        await _remember(folder, ledger)
        async with _scanner(folder, ledger) as scanner:
            scans = [await _scan(scanner) for _ in range(times + 1)]
        totals = await ledger.run(views.totals)
    assert totals.images.indexed == files  # noqa: S101 - a file that was looked at again would be pending
    return scans[1:]


async def _scan(scanner: Scanner) -> Scan:
    _RESET_PEAK.write_text("5")
    before, begun, cpu = _memory_mib("VmRSS"), time.perf_counter(), time.process_time()
    await scanner.complete_scan()
    return Scan(time.perf_counter() - begun, time.process_time() - cpu, _memory_mib("VmHWM") - before)


def _lay_files(root: Path, files: int) -> None:
    for number in range(files):
        below = root / f"{number // _FILES_A_FOLDER:04} pictures of a day"
        if number % _FILES_A_FOLDER == 0:
            below.mkdir(parents=True)
        (below / f"IMG_{number:06}.jpg").write_bytes(b"\xff\xd8\xff")


async def _remember(folder: Folder, ledger: Ledger) -> None:
    """Every file as an image of its own that is indexed."""
    for batch in folder.walk():
        admissions = [
            Admission(path, stat, hashlib.sha256(path.encode()).hexdigest(), noticed_at=time.time()) for path, stat in batch.files
        ]
        await ledger.run(locations.admit, admissions, time.time())
        await ledger.run(locations.record_mounts, {"": folder.root.stat().st_dev})
    await ledger.run(_note_indexed)


def _note_indexed(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE images SET state = 'indexed', indexed_at = noticed_at")


@asynccontextmanager
async def _scanner(folder: Folder, ledger: Ledger) -> AsyncIterator[Scanner]:
    """With an intake that would take what it finds, as in the watcher."""
    async with AsyncExitStack() as stack:
        readers = stack.enter_context(ThreadPoolExecutor(4, thread_name_prefix="folder"))
        pictures = WatchedFolder(folder, max_image_bytes=2**20)
        scanner = Scanner(pictures, ledger, readers, accept_new_folder=False)
        intake = Intake(
            pictures,
            ledger,
            readers,
            rules=SettleRules(settle_s=2.0, truncated_after_s=60.0),
            max_image_bytes=2**20,
            events=IntakeEvents(_nothing, _nothing, _refused, scanner.request, _none_lost),
        )
        for work in (intake.run(), scanner.run(intake)):
            task = asyncio.create_task(work)
            stack.callback(task.cancel)
        yield scanner


def _nothing() -> None: ...


def _refused(reason: Reason) -> None:
    raise AssertionError(f"a file that was known was refused: {reason}")


async def _none_lost() -> Collection[str]:
    return ()


def _memory_mib(line: str) -> float:
    return next(int(one.split()[1]) for one in _STATUS.read_text().splitlines() if one.startswith(f"{line}:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rescan", description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="imagesearch-rescan-") as folder:
        found = rows(Path(folder), files=asked.files, times=asked.times)
    print(json.dumps({"machine": facts(), "rows": [row.as_json() for row in found]}, indent=2))
    print("\n".join([*HEAD, *(row.as_markdown() for row in found)]))


if __name__ == "__main__":
    main()
