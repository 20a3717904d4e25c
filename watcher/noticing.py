"""What notices: compares folder, ledger and vectors, and follows what happens to files. Of all processes one does, by its watch."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from watcher import jobs
from watcher.homes import observer_of, vigil_of
from watcher.ingesting import Ingesting
from watcher.intake import Intake, IntakeEvents
from watcher.ledger import Operations
from watcher.observer import FolderObserver
from watcher.reconcile import Reconciler, VectorCheck
from watcher.scanner import Scanner
from watcher.services import run_in
from watcher.settings import WatcherSettings
from watcher.stability import SettleRules
from watcher.sweeper import Sweeper
from watcher.watched_bucket import ListingOnly


@dataclass(frozen=True, slots=True)
class Noticing:
    intake: Intake
    scanner: Scanner
    reconciler: Reconciler
    observer: FolderObserver | ListingOnly
    sweeper: Sweeper


def noticing(settings: WatcherSettings, ingesting: Ingesting, ledger: Operations) -> Noticing:
    """`ledger` is that of the watch: whoever lost it changes nothing any more."""
    pictures, worker, readers = ingesting.pictures, ingesting.worker, ingesting.readers
    scanner = Scanner(pictures, ledger, readers, accept_new_folder=settings.accept_new_folder)

    def on_admitted() -> None:
        worker.wake()
        on_left()

    def on_left() -> None:
        sweeper.wake()
        observer.note_change()

    def is_calm() -> bool:
        return intake.is_calm and not scanner.is_busy and not scanner.folder_missing

    async def is_backlog() -> bool:
        return await ledger.run(jobs.has_pending, new_alone=worker.takes_new_alone)

    intake = Intake(
        pictures,
        ledger,
        readers,
        rules=SettleRules(settle_s=settings.settle_s, truncated_after_s=settings.truncated_after_s),
        max_image_bytes=settings.max_image_bytes,
        events=IntakeEvents(
            admitted=on_admitted,
            left=on_left,
            refused=ingesting.metrics.note_failed,
            scan=scanner.request,
            lost_mounts=scanner.lost,
        ),
    )
    sweeper = Sweeper(
        ledger,
        ingesting.vectors,
        ingesting.locks,
        orphan_grace_s=settings.orphan_grace_s,
        is_calm=is_calm,
        is_alone=not ingesting.ledger.is_shared,
    )
    reconciler = Reconciler(
        ledger,
        VectorCheck(ledger, ingesting.vectors, ingesting.locks, points_per_s=settings.vectors_check_rate),
        interval_s=settings.reconcile_interval_s,
        every_point_interval_s=settings.vectors_check_interval_s,
        scan=scanner.complete_scan,
        is_calm=is_calm,
        is_settling=lambda: intake.settling > 0,
        is_backlog=is_backlog,
        models=worker.models,
        mended=worker.wake,
    )
    observer = observer_of(pictures, settings, on_hints=intake.take, on_loss=scanner.request)
    return Noticing(intake, scanner, reconciler, observer, sweeper)


async def start(stack: AsyncExitStack, ingesting: Ingesting, parts: Noticing, ledger: Operations) -> None:
    """Run it until the stack unwinds. What stands first here ends last."""
    await stack.enter_async_context(parts.observer)
    await run_in(stack, parts.sweeper.run, "sweeper")
    await run_in(stack, parts.intake.run, "intake")
    await run_in(stack, partial(parts.scanner.run, parts.intake), "scanner")
    vigil = vigil_of(ingesting.pictures, ledger, parts.observer, parts.scanner)
    await vigil.begin()
    await run_in(stack, vigil.run, "vigil")
    await run_in(stack, parts.reconciler.run, "reconciler")
