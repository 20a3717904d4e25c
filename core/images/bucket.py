"""Pictures in a bucket of an S3 service (`IMAGES_URL=s3://...`): objects appear whole, and their ETag tells one version from another."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

import structlog

from core.errors import Forbidden, ImageSearchError, InvalidRequest, NotFound, StorageFull, Unavailable
from core.file_cache import FileCache
from core.filenames import is_hidden
from core.images.calls import Calls
from core.images.kinds import TELLING_BYTES, content_type
from core.images.listing import Listing, stored
from core.images.places import BucketPlace, is_odd
from core.images.signing import Keys, signed
from core.ports import OpenedFile, ShownAs, StoredFile

if TYPE_CHECKING:
    from obstore import GetOptions, GetResult
    from obstore.store import S3Store

log = structlog.get_logger()

_LONGEST_KEY_BYTES = 1024
_CALL_TIMEOUT_S, _CONNECT_TIMEOUT_S, _STALLED_AFTER_S = 300, 5, 20
_RETRIES = 2
_LONGEST_PAUSE_S, _RETRYING_S = 1, 10
"""obstore repeats what the service or the network broke off, with growing pauses and jitter. Who asks waits longer, by its own rules."""

_PAUSES_S = (1, 2, 4, 8, 16)
"""Before a listing that broke off is gone on with: a large bucket has thousands of pages, and would never come to its end."""

_GONE = "there is no such picture in the bucket"

_Page = list[StoredFile]


class ImageBucket:
    """See `core.ports.ImageStore`. What is read whole is kept in `cache`, under a name of path, ETag and size.

    After `close` everything is Unavailable.
    """

    def __init__(self, place: BucketPlace, cache: FileCache, *, keys: Keys | None, link_endpoint: str | None = None) -> None:
        """`keys` sign links, and everything if they are given; else obstore finds others (a role, an instance).

        `link_endpoint` is where browsers reach the service, if not where we do, as `endpoint_of` has it. Raises ImageSearchError where
        obstore is not installed.
        """
        self.place = place
        self._cache = cache
        self._keys = keys
        self._link_endpoint = link_endpoint
        self._store = _opened(place, keys)
        self._calls = Calls()
        self._listing = Listing(self._store, place, keys, self._calls)

    def close(self) -> None:
        """What is under way is broken off."""
        self._calls.close()

    def check(self) -> None:
        self.is_empty()

    def is_empty(self) -> bool:
        """Whether there is no object at all, hidden ones included. Raises Unavailable."""
        return not any(page for page in self._pages("", ""))

    def list(self, below: str = "", *, after: str = "") -> Iterator[list[StoredFile]]:
        for page in self._pages(below, after):
            shown = [file for file in page if not is_hidden(file.path)]
            if shown:
                yield shown

    def listed(self, path: str) -> StoredFile:
        """What the listing tells of it. Services refuse a look at what is there, and, to those who may not list all of the bucket, at
        what is not there as well. Raises NotFound, Unavailable."""
        _check_name(path)
        folder = path.rpartition("/")[0]
        for page in self._pages(folder, path[:-1].removesuffix("/")):
            for file in page:
                if file.path >= path:
                    if file.path == path:
                        return file
                    raise NotFound(_GONE)
        raise NotFound(_GONE)

    def _pages(self, below: str, after: str) -> Iterator[_Page]:
        """Raises Unavailable at once where nothing comes; what breaks off behind a page is gone on with from there, for a while."""
        pauses: Iterator[int] = iter(())
        while True:
            try:
                for page in self._asked_pages(below, after):
                    yield page
                    if page:
                        after, pauses = page[-1].path, iter(_PAUSES_S)
            except Unavailable as error:
                pause_s = next(pauses, None)
                if pause_s is None:
                    raise
                log.info("bucket_listing_broke_off", why=str(error), again_in_s=pause_s)
                jittered_s = pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
                self._calls.wait(partial(asyncio.sleep, jittered_s))
            else:
                return

    def _asked_pages(self, below: str, after: str) -> Iterator[_Page]:
        try:
            with _asked("the bucket", gone=Unavailable("there is no such bucket", retry_after_s=30)):
                yield from self._listing.pages(below, after)
        except Forbidden as error:
            raise Unavailable(str(error), retry_after_s=30) from None

    def stat(self, path: str) -> StoredFile:
        _check_name(path)
        with _asked("the object"):
            return stored(self._calls.wait(lambda: self._store.head_async(path)))

    def read(self, path: str, *, most_bytes: int) -> tuple[StoredFile, bytes]:
        file = self.stat(path)
        if most_bytes < file.size:
            return self._part(file, most_bytes)
        kept = self._cache.get(_kept_as(file))
        return (file, kept) if kept is not None and len(kept) == file.size else self._fetched(file)

    def fetch(self, path: str, *, most_bytes: int) -> tuple[StoredFile, bytes]:
        """As it is now, whatever the cache has. Of a larger object nothing is read."""
        _check_name(path)
        with _asked("the object"):
            file, content = self._calls.wait(lambda: self._got(path, None, most_bytes))
        if len(content) == file.size:
            self._cache.keep(_kept_as(file), content)
        return file, content

    def open(self, path: str) -> OpenedFile:
        file = self.stat(path)
        opened = self._cached(file)
        if opened is not None:
            return opened
        fetched, content = self._whole(file)
        kept = self._cache.keep_open(_kept_as(fetched), content)
        if kept is None:
            raise StorageFull("there is no room to keep pictures of the bucket", retry_after_s=30)
        return OpenedFile(kept, fetched.size, fetched.modified_ns / 10**9, content[:TELLING_BYTES])

    def peek(self, path: str) -> tuple[StoredFile, bytes]:
        return self._part(self.stat(path), TELLING_BYTES)

    def add(self, within: str, names: Sequence[str], content: bytes) -> str:
        for name in names:
            path = f"{within}/{name}" if within else name
            if len(self.place.key(path).encode()) > _LONGEST_KEY_BYTES:
                raise InvalidRequest("the folder's name is longer than a bucket takes", field="folder")
            _check_name(path)
            try:
                if self._created(path, content) or self._holds(path, content):
                    return path
            except Forbidden:
                raise Unavailable("the bucket takes no pictures from the keys that are set", retry_after_s=60) from None
        raise Unavailable("the picture cannot be stored: every name is taken", retry_after_s=60)

    def delete(self, path: str) -> None:
        try:
            self.forget(path)
            with _asked("the object"):
                self._calls.wait(lambda: self._store.delete_async(path))
        except NotFound:
            return
        except Forbidden:
            raise Unavailable("the bucket does not let its objects be removed", retry_after_s=60) from None

    def forget(self, path: str) -> None:
        self._cache.forget(_kept_as(self.stat(path)))

    def link(self, path: str, shown: ShownAs, *, method: str = "GET") -> str | None:
        """None without keys of our own: those of a role sign what obstore asks, and nothing else."""
        if self._keys is None:
            return None
        query = {
            "response-content-type": shown.content_type,
            "response-content-disposition": shown.disposition,
            "response-cache-control": "private, no-cache",
        }
        address = self.place.address(path, endpoint=self._link_endpoint)
        return signed(method, address, query, self._keys, lifetime_s=shown.lifetime_s, now=datetime.now(UTC))

    # --- reading

    def _part(self, file: StoredFile, most_bytes: int) -> tuple[StoredFile, bytes]:
        if min(most_bytes, file.size) == 0:  # of which the service has no range
            return file, b""
        return self._get(file, {"range": (0, min(most_bytes, file.size)), "if_match": file.version or None})

    def _fetched(self, file: StoredFile) -> tuple[StoredFile, bytes]:
        found, content = self._whole(file)
        self._cache.keep(_kept_as(found), content)
        return found, content

    def _whole(self, file: StoredFile) -> tuple[StoredFile, bytes]:
        """The very version that was seen. Raises NotFound where it is another by now."""
        found, content = self._get(file, {"if_match": file.version or None}) if file.size else (file, b"")
        if len(content) != found.size:
            raise Unavailable("the bucket broke off in the middle of a picture")
        return found, content

    def _get(self, file: StoredFile, options: GetOptions) -> tuple[StoredFile, bytes]:
        from obstore.exceptions import PreconditionError  # noqa: PLC0415 - an extra

        with _asked("the object"):
            try:
                return self._calls.wait(lambda: self._got(file.path, options, file.size))
            except PreconditionError:
                raise NotFound("the picture in the bucket was just replaced") from None

    async def _got(self, path: str, options: GetOptions | None, most_bytes: int) -> tuple[StoredFile, bytes]:
        """Nothing of what is larger."""
        result: GetResult = await self._store.get_async(path, options=options)
        file = stored(result.meta)
        return file, bytes(await result.bytes_async()) if file.size <= most_bytes else b""

    def _cached(self, file: StoredFile) -> OpenedFile | None:
        """A file of another length was cut short by a power cut, or is a fault of the disk."""
        kept = self._cache.open(_kept_as(file))
        if kept is None:
            return None
        first_bytes = kept.read(TELLING_BYTES)
        if kept.seek(0, 2) != file.size:
            kept.close()
            return None
        kept.seek(0)
        return OpenedFile(kept, file.size, file.modified_ns / 10**9, first_bytes)

    # --- writing

    def _created(self, path: str, content: bytes) -> bool:
        """False where the name is taken. The service decides, so that no two uploads get one name."""
        from obstore.exceptions import AlreadyExistsError  # noqa: PLC0415 - an extra

        with _asked("the bucket"):
            try:
                attributes = {"Content-Type": content_type(content[:TELLING_BYTES])}
                self._calls.wait(
                    lambda: self._store.put_async(path, content, mode="create", attributes=attributes, use_multipart=False)
                )
            except AlreadyExistsError:
                return False
        return True

    def _holds(self, path: str, content: bytes) -> bool:
        try:
            file, held = self.read(path, most_bytes=len(content) + 1)
        except (NotFound, Forbidden):
            return False
        return file.size == len(content) and held == content


def _opened(place: BucketPlace, keys: Keys | None) -> S3Store:
    if find_spec("obstore") is None:
        raise ImageSearchError("IMAGES_URL needs obstore, which is not installed: pip install '.[s3]', or make build")
    from obstore.store import S3Store  # noqa: PLC0415 - an extra, for those alone who have a bucket

    return S3Store(
        place.bucket,
        prefix=place.prefix or None,
        config={
            "endpoint": place.endpoint,
            "region": place.region,
            "virtual_hosted_style_request": False,
            **({"access_key_id": keys.access_key_id, "secret_access_key": keys.secret_access_key} if keys else {}),
            **({"session_token": keys.session_token} if keys and keys.session_token else {}),
        },
        client_options={
            "allow_http": place.is_plain_http,
            "timeout": timedelta(seconds=_CALL_TIMEOUT_S),
            "connect_timeout": timedelta(seconds=_CONNECT_TIMEOUT_S),
            "read_timeout": timedelta(seconds=_STALLED_AFTER_S),
        },
        retry_config={
            "max_retries": _RETRIES,
            "backoff": {"max_backoff": timedelta(seconds=_LONGEST_PAUSE_S)},
            "retry_timeout": timedelta(seconds=_RETRYING_S),
        },
    )


@contextmanager
def _asked(what: str, *, gone: ImageSearchError | None = None) -> Iterator[None]:
    """What obstore raises, in our words: its own hold addresses, and whole answers of the service."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError  # noqa: PLC0415 - an extra

    try:
        yield
    except FileNotFoundError:
        raise gone or NotFound(_GONE) from None
    except (PermissionDeniedError, UnauthenticatedError):
        raise Forbidden(f"{what} is refused to the keys that are set") from None
    except BaseError as error:
        log.debug("bucket_failed", error=str(error)[:500])
        raise Unavailable("the bucket does not answer") from None


def _check_name(path: str) -> None:
    if is_odd(path) or path.endswith("/"):
        raise NotFound(_GONE)


def _kept_as(file: StoredFile) -> str:
    return hashlib.sha256(f"{file.path}\0{file.version or file.modified_ns}\0{file.size}".encode()).hexdigest()
