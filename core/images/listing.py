"""What lies in a bucket, a page at a time, whatever names lie between.

S3 takes any text for a name, `a//b.jpg` and `a/../b.jpg` included. obstore takes those for no path at all, and one of them ends its
listing of the whole bucket. From there on pages are fetched here, and such names are left out: nobody could open them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import httpx
import structlog

from core.errors import Unavailable
from core.images.calls import Calls
from core.images.places import BucketPlace, is_odd
from core.images.signing import Keys, signed
from core.ports import StoredFile

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import S3Store

log = structlog.get_logger()

_PAGE = 1000
_LIFETIME_S = 60
_TIMEOUT_S = 30.0
_PAUSES_S = (0.2, 1.0)
_UNLISTED = "the bucket does not list what is in it"


def stored(meta: ObjectMeta) -> StoredFile:
    """In whole seconds, since some answers of the service tell no more."""
    return StoredFile(meta["path"], meta["size"], int(meta["last_modified"].timestamp()) * 10**9, meta["e_tag"] or "")


class Listing:
    """Pages in order. Raises what obstore raises, and Unavailable."""

    def __init__(self, store: S3Store, place: BucketPlace, keys: Keys | None, calls: Calls) -> None:
        self._store = store
        self._place = place
        self._keys = keys
        self._calls = calls
        self._told_odd = False

    def pages(self, below: str, after: str, *, odd: bool = False) -> Iterator[list[StoredFile]]:
        """With `odd`, names among them that nobody could open."""
        from obstore.exceptions import InvalidPathError  # noqa: PLC0415 - an extra

        last, any_came = after, False
        if any(name and is_odd(name) for name in (below, after)):
            yield from self._careful_pages(below, after, odd=odd)
            return
        try:
            pages = self._store.list(below or None, offset=after or None, chunk_size=_PAGE)
            while page := self._calls.wait(lambda: anext(pages, None)):
                found = [stored(meta) for meta in page]
                last, any_came = found[-1].path, True
                yield found
        except InvalidPathError:
            self._tell_odd_names()
        else:
            if any_came or self._keys is None:  # to obstore, a login page is a bucket with nothing in it
                return
        yield from self._careful_pages(below, last, odd=odd)

    def _tell_odd_names(self) -> None:
        if not self._told_odd:
            log.warning("object_names_odd", instead="they are left out", fix="no //, no . or .. between /, no control characters")
        self._told_odd = True

    def _careful_pages(self, below: str, after: str, *, odd: bool) -> Iterator[list[StoredFile]]:
        if self._keys is None:
            raise Unavailable("the bucket holds names that cannot be listed without AWS_ACCESS_KEY_ID", retry_after_s=60)
        query = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": str(_PAGE),
            "prefix": self._place.key(f"{below}/" if below else ""),
            **({"start-after": self._place.key(after)} if after else {}),
        }
        over_tls = self._place.address().startswith("https:")  # else reading the certificates is half of the time of a listing
        client = httpx.AsyncClient(timeout=_TIMEOUT_S, verify=over_tls)
        token: str | None = ""
        try:
            while token is not None:
                asked = {**query, **({"continuation-token": token} if token else {})}
                page, token = self._page(self._calls.wait(partial(self._answer, client, asked)))
                yield [file for file in page if odd or not is_odd(file.path)]
        finally:
            with suppress(Unavailable):
                self._calls.wait(client.aclose)

    async def _answer(self, client: httpx.AsyncClient, query: dict[str, str]) -> bytes:
        """Asked for again where the service says, or shows, that it has too much to do."""
        if self._keys is None:
            raise RuntimeError("pages are asked for with keys only")
        for pause_s in (*_PAUSES_S, None):
            now = datetime.now(UTC)
            address = signed("GET", self._place.address(), query, self._keys, lifetime_s=_LIFETIME_S, now=now)
            with suppress(httpx.TransportError):
                answer = await client.get(address)
                if answer.is_success:
                    return answer.content
                if answer.status_code < 500 and answer.status_code != 429:
                    break
            if pause_s is not None:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
        raise Unavailable(_UNLISTED)

    def _page(self, answer: bytes) -> tuple[list[StoredFile], str | None]:
        """With the token of the next one."""
        try:
            document = ET.fromstring(answer)  # noqa: S314 - of the service that holds all pictures; expat bounds entities
        except ET.ParseError:
            raise Unavailable(_UNLISTED) from None
        try:
            found = [self._told(one) for one in document.iterfind("{*}Contents")]
            is_last = {"true": False, "false": True}[document.findtext("{*}IsTruncated", "")]
        except (ValueError, KeyError):  # anything but a listing, which would be taken for that of an empty bucket
            raise Unavailable(_UNLISTED) from None
        token = document.findtext("{*}NextContinuationToken")
        if not is_last and not token:
            raise Unavailable(_UNLISTED)
        return [one for one in found if one is not None], None if is_last else token

    def _told(self, element: ET.Element) -> StoredFile | None:
        key = unquote((element.findtext("{*}Key") or "").replace("+", " "))
        path = self._place.path(key)
        if path is None or path.endswith("/"):
            return None
        modified = datetime.fromisoformat(element.findtext("{*}LastModified") or "")
        return StoredFile(
            path, int(element.findtext("{*}Size") or 0), int(modified.timestamp()) * 10**9, element.findtext("{*}ETag") or ""
        )
