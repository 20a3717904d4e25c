"""Pictures in a bucket, as the watcher sees them. Objects appear whole, so nothing has to settle; there are no moves, only new names."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from core.decode import IMAGE_SUFFIXES, sniff
from core.errors import Forbidden, InvalidRequest, NotFound, Unavailable
from core.filenames import is_storable
from core.images.places import is_odd
from core.ports import StoredFile
from watcher.folder import WalkBatch
from watcher.locations import FileStat
from watcher.mounts import WITNESSES
from watcher.pictures import ObserverKind, Verified
from watcher.probe import Absence, Seen
from watcher.stability import Writing

if TYPE_CHECKING:
    from core.images.bucket import ImageBucket

T = TypeVar("T")

_AT_ONCE = 16
_SNIFFED = 512
_SIGNED_63_BITS = 2**63 - 1


class WatchedBucket:
    """See `watcher.pictures.Pictures`. Its calls go out on threads of its own, several at once, until it is closed."""

    remedy = "see that the service answers and the keys hold; for a bucket that was emptied on purpose set ACCEPT_NEW_FOLDER"
    hashers = 8

    def __init__(self, bucket: ImageBucket, *, max_image_bytes: int) -> None:
        self._bucket = bucket
        self._max_image_bytes = max_image_bytes
        self._calls = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="bucket")
        place = bucket.place
        self._number = _number(f"{place.endpoint}/{place.bucket}/{place.prefix}")

    def close(self) -> None:
        self._bucket.close()
        self._calls.shutdown(cancel_futures=True)

    @property
    def name(self) -> str:
        return self._bucket.place.bucket

    def is_there(self) -> bool:
        try:
            self._bucket.check()
        except Unavailable:
            return False
        return True

    def lost(self, devices: Mapping[str, int], witnesses: Mapping[str, Sequence[str]]) -> set[str]:
        """All of it, when the bucket is away; when it is empty and a hundred objects were known; and when it is another one with none of them.

        Objects that were few are looked for one by one before they are forgotten.
        """
        known = witnesses.get("", ())
        another = bool(known) and devices.get("", self._number) != self._number
        try:
            if self._bucket.is_empty():
                return {""} if another or len(known) >= WITNESSES else set()
            if another and all(found is Absence.GONE for found in self.stats(known)):
                return {""}
        except Unavailable:
            return {""}
        return set()

    def checked(self, path: str) -> str:
        if not is_storable(path) or is_odd(path) or path.endswith("/"):
            raise InvalidRequest("the path must be the name of an object within the bucket's prefix", field="path")
        return path

    def walk(self, below: str = "") -> Iterator[WalkBatch]:
        """A console makes folders by empty objects whose names end in `/`, which are told without it: they are left out."""
        yield WalkBatch(mounts={} if below else {"": self._number})
        for page in self._bucket.list(below):
            yield WalkBatch([(file.path, _stat_of(file)) for file in page if file.size or PurePosixPath(file.path).suffix])

    def stats(self, paths: Sequence[str]) -> list[FileStat | Absence]:
        return list(self._calls.map(lambda path: _or_absent(lambda: self._stat(path)), paths))

    def _stat(self, path: str) -> FileStat:
        """Of what may be listed and not looked at, what is listed: it fails with its reason when it is read. Raises NotFound, Unavailable."""
        try:
            return _stat_of(self._bucket.stat(path))
        except Forbidden:
            return _stat_of(self._bucket.listed(path))

    def looks(self, files: Sequence[tuple[str, FileStat]], *, now: float) -> list[Seen | Absence]:
        return list(self._calls.map(lambda file: _or_absent(lambda: self._look(*file)), files))

    def _look(self, path: str, stat: FileStat) -> Seen:
        """Nothing is fetched of what is named as a picture."""
        image = PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
        if not image:
            file, first_bytes = self._bucket.read(path, most_bytes=_SNIFFED)
            stat, image = _stat_of(file), sniff(first_bytes)
        return Seen(stat, Writing.CLOSED, complete=True, image=image, age_s=math.inf)

    def content_hash(self, path: str, expected: FileStat) -> str | Absence | None:
        """It is fetched, and then lies in the cache for whoever ingests it."""
        fetched = _or_absent(lambda: self._bucket.fetch(path, most_bytes=expected.size))
        if isinstance(fetched, Absence):
            return fetched
        file, body = fetched
        return hashlib.sha256(body).hexdigest() if _stat_of(file) == expected else None

    def read(self, path: str, image_id: str) -> Verified | None:
        """What the cache has may have been damaged since: then it is fetched again."""
        for get in (self._bucket.read, self._bucket.fetch):
            with suppress(NotFound):
                try:
                    file, body = get(path, most_bytes=self._max_image_bytes)
                except Forbidden:
                    self._bucket.check()  # where all of it is refused, it is not this object's fault
                    return None
                if hashlib.sha256(body).hexdigest() == image_id:
                    return Verified(body, datetime.fromtimestamp(file.modified_ns / 10**9, UTC))
        return None

    def remove(self, paths: Sequence[str]) -> None:
        for path in paths:
            self._bucket.delete(path)


class ListingOnly:
    """Where a folder has an observer: hints come by HTTP, if at all (`Catalog.hint`)."""

    kind: ObserverKind = "listing"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def note_change(self) -> None: ...


def _stat_of(file: StoredFile) -> FileStat:
    """The ETag says which version it is, and to whom it belongs: two objects of the same bytes are read each."""
    return FileStat(file.size, 0, _number(f"{file.path}\0{file.version or file.modified_ns}"))


def _number(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) & _SIGNED_63_BITS


def _or_absent(look: Callable[[], T]) -> T | Absence:
    try:
        return look()
    except NotFound:
        return Absence.GONE
    except Forbidden:
        return Absence.DENIED
