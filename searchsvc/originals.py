"""The pictures' own files, as the search service hands them on: an image has several paths, any of which may be gone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress

from core.errors import Forbidden, NotFound
from core.images.kinds import UNKNOWN, content_type
from core.ports import ImageStore, OpenedFile, ShownAs

_GONE = "the picture's file is no longer there"


class Originals:
    """Blocks on the disk, or on the bucket: call it in an executor. Raises Unavailable while those are away."""

    def __init__(self, store: ImageStore, *, link_lifetime_s: int | None) -> None:
        """Without a lifetime there are no links, and every file is sent by us."""
        self._store = store
        self._link_lifetime_s = link_lifetime_s

    def open_first(self, paths: Iterable[str], *, size: int) -> OpenedFile:
        """Open the first of an image's paths that still holds it (as far as its size tells). Raises NotFound."""
        for path in paths:
            with suppress(NotFound, Forbidden):
                opened = self._store.open(path)
                if opened.size == size:
                    return opened
                opened.file.close()
        raise NotFound(_GONE)

    def read_first(self, image_id: str, paths: Iterable[str], *, most_bytes: int) -> bytes:
        """This very image, from the first of its paths that still holds it. Raises NotFound, and where it is larger as well."""
        for path in paths:
            with suppress(NotFound, Forbidden, OSError):
                content = self._store.read(path, most_bytes=most_bytes)[1]
                if hashlib.sha256(content).hexdigest() == image_id:
                    return content
        raise NotFound(_GONE)

    def link_first(self, paths: Iterable[str], *, size: int, disposition: str, method: str) -> str | None:
        """Where a browser can fetch it by itself; None where it is to be sent. Only of what begins like a picture. Raises NotFound."""
        if self._link_lifetime_s is None:
            return None
        for path in paths:
            with suppress(NotFound, Forbidden):
                file, first_bytes = self._store.peek(path)
                kind = content_type(first_bytes)
                if file.size == size:
                    shown = ShownAs(kind, disposition, self._link_lifetime_s)
                    return self._store.link(path, shown, method=method) if kind != UNKNOWN else None
        raise NotFound(_GONE)

    def forget(self, paths: Iterable[str]) -> None:
        """Of what is about to be deleted nothing stays in this service."""
        for path in paths:
            with suppress(NotFound, Forbidden):
                self._store.forget(path)

    def any_holds(self, paths: Iterable[str], picture: bytes) -> bool:
        """Whether one of these is still this very picture: what is known of a file may be older than the file."""
        for path in paths:
            with suppress(NotFound, Forbidden, OSError):
                if self._store.stat(path).size == len(picture) and self._store.read(path, most_bytes=len(picture))[1] == picture:
                    return True
        return False
