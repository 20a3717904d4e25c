"""What lies in a bucket, a page at a time, whatever names lie between.

S3 takes any text for a name, `a//b.jpg` and `a/../b.jpg` included. obstore takes those for no path at all, and one of them ends its
listing of the whole bucket. From there on pages are fetched here, and such names are left out: nobody could open them.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import httpx
import structlog

from core.errors import Unavailable
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


def stored(meta: ObjectMeta) -> StoredFile:
    """In whole seconds, since some answers of the service tell no more."""
    return StoredFile(meta["path"], meta["size"], int(meta["last_modified"].timestamp()) * 10**9, meta["e_tag"] or "")


class Listing:
    """Pages in order. Raises what obstore raises, and Unavailable."""

    def __init__(self, store: S3Store, place: BucketPlace, keys: Keys | None) -> None:
        self._store = store
        self._place = place
        self._keys = keys
        self._told_odd = False

    def pages(self, below: str, after: str) -> Iterator[list[StoredFile]]:
        from obstore.exceptions import InvalidPathError  # noqa: PLC0415 - an extra

        last = after
        try:
            for page in self._store.list(below or None, offset=after or None, chunk_size=_PAGE):
                found = [stored(meta) for meta in page]
                last = found[-1].path if found else last
                yield found
        except InvalidPathError:
            self._tell_odd_names()
            yield from self._careful_pages(below, last)

    def _tell_odd_names(self) -> None:
        if not self._told_odd:
            log.warning("object_names_odd", instead="they are left out", fix="no //, no . or .. between /, no control characters")
        self._told_odd = True

    def _careful_pages(self, below: str, after: str) -> Iterator[list[StoredFile]]:
        if self._keys is None:
            raise Unavailable("the bucket holds names that cannot be listed without AWS_ACCESS_KEY_ID", retry_after_s=60)
        query = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": str(_PAGE),
            "prefix": self._place.key(f"{below}/" if below else ""),
            **({"start-after": self._place.key(after)} if after else {}),
        }
        with httpx.Client(timeout=_TIMEOUT_S) as client:
            token: str | None = ""
            while token is not None:
                page, token = self._page(client, {**query, **({"continuation-token": token} if token else {})})
                yield page

    def _page(self, client: httpx.Client, query: dict[str, str]) -> tuple[list[StoredFile], str | None]:
        """With the token of the next one."""
        if self._keys is None:
            raise RuntimeError("pages are asked for with keys only")
        now = datetime.now(UTC)
        try:
            answer = client.get(signed("GET", self._place.address(), query, self._keys, lifetime_s=_LIFETIME_S, now=now))
            answer.raise_for_status()
            document = ET.fromstring(answer.content)  # noqa: S314 - of the service that holds all pictures; expat bounds entities
        except (httpx.HTTPError, ET.ParseError):
            raise Unavailable("the bucket does not list what is in it") from None
        found = [self._told(one) for one in document.iterfind("{*}Contents")]
        token = document.findtext("{*}NextContinuationToken") if document.findtext("{*}IsTruncated") == "true" else None
        return [one for one in found if one is not None], token

    def _told(self, element: ET.Element) -> StoredFile | None:
        key = unquote((element.findtext("{*}Key") or "").replace("+", " "))
        path = self._place.path(key)
        if path is None or is_odd(path) or path.endswith("/"):
            return None
        modified = datetime.fromisoformat(element.findtext("{*}LastModified") or "")
        return StoredFile(
            path, int(element.findtext("{*}Size") or 0), int(modified.timestamp()) * 10**9, element.findtext("{*}ETag") or ""
        )
