"""Which home of pictures the settings name, and what watches over that: a folder is listened to, a bucket is asked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from core.images.settings import bucket_of
from watcher.bucket_vigil import BucketVigil
from watcher.folder import Folder
from watcher.observer import FolderObserver, Hint
from watcher.pictures import Pictures
from watcher.settings import WatcherSettings
from watcher.vigil import Vigil
from watcher.watched_bucket import ListingOnly, WatchedBucket
from watcher.watched_folder import WatchedFolder

if TYPE_CHECKING:
    from watcher.ledger import Operations
    from watcher.scanner import Scanner


def pictures_of(settings: WatcherSettings, resources: ExitStack) -> WatchedFolder | WatchedBucket:
    """Raises ImageSearchError where what a bucket takes is not installed. What it holds is given back with `resources`."""
    place = settings.bucket_place
    if place is None:
        return WatchedFolder(Folder(settings.images_dir), max_image_bytes=settings.max_image_bytes)
    bucket = bucket_of(place, data_dir=settings.data_dir, cache_bytes=settings.images_cache_bytes)
    watched = WatchedBucket(bucket, max_image_bytes=settings.max_image_bytes)
    resources.callback(watched.close)
    return watched


def observer_of(
    pictures: Pictures, settings: WatcherSettings, *, on_hints: Callable[[list[Hint]], None], on_loss: Callable[[], None]
) -> FolderObserver | ListingOnly:
    """To be entered."""
    if not isinstance(pictures, WatchedFolder):
        return ListingOnly()
    return FolderObserver(
        pictures.folder,
        polling=settings.watch_mode == "polling",
        poll_interval_s=settings.poll_interval_s,
        on_hints=on_hints,
        on_loss=on_loss,
    )


def vigil_of(
    pictures: Pictures, ledger: Operations, observer: FolderObserver | ListingOnly, scanner: Scanner
) -> Vigil | BucketVigil:
    if isinstance(pictures, WatchedFolder) and isinstance(observer, FolderObserver):
        return Vigil(pictures.folder, ledger, observer, scanner)
    return BucketVigil(scanner)
