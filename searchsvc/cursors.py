"""The next page of an answer, as a signed text that its reader hands back: no state is kept here, so any replica can go on."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
import zlib
from collections.abc import Callable

from pydantic import ValidationError

from core.errors import InvalidRequest
from core.schemas import Wire
from searchsvc.keys import KeyRing
from searchsvc.question import Question
from searchsvc.ranking import Place

_PURPOSE = b"search cursor"
_DIGEST = "sha256"
_SIGNATURE_BYTES = 32
_LARGEST_BYTES = 4 * 2**20


class Continuation(Wire):
    """Where an answer goes on, or begins: behind `place`; or, where matches are arranged anew, among those of at least the score `least`."""

    question: Question
    top_k: int
    place: Place | None = None
    shown: tuple[str, ...] = ()
    """Keys of the matches before, where matches are arranged anew."""
    least: float | None = None
    until_s: int = 0

    @property
    def rank(self) -> int:
        """Of the last match before."""
        return self.place.rank if self.place else len(self.shown)


class Cursors:
    """Writes and reads them. `keys` are those of the tokens; a cursor is never taken for one. `clock` gives seconds since the epoch."""

    def __init__(self, keys: KeyRing, *, ttl_s: int, clock: Callable[[], float] = time.time) -> None:
        self._keys = [key.derived(_PURPOSE) for key in keys]
        self._ttl_s = ttl_s
        self._clock = clock

    def write(self, continuation: Continuation) -> str:
        dated = continuation.model_copy(update={"until_s": int(self._clock()) + self._ttl_s})
        content = zlib.compress(dated.model_dump_json(by_alias=True).encode(), 1)
        return base64.urlsafe_b64encode(hmac.digest(self._keys[0], content, _DIGEST) + content).rstrip(b"=").decode()

    def read(self, cursor: str) -> Continuation:
        """Raises InvalidRequest for anything but an unexpired cursor of this service."""
        try:
            decoded = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        except (ValueError, binascii.Error):
            raise _unknown() from None
        signature, content = decoded[:_SIGNATURE_BYTES], decoded[_SIGNATURE_BYTES:]
        signed = [hmac.compare_digest(signature, hmac.digest(key, content, _DIGEST)) for key in self._keys]
        if not any(signed):
            raise _unknown()
        try:
            continuation = Continuation.model_validate_json(zlib.decompressobj().decompress(content, _LARGEST_BYTES))
        except (zlib.error, ValidationError):  # of an earlier release
            raise _unknown() from None
        if self._clock() >= continuation.until_s:
            raise InvalidRequest("the cursor has expired: search again", field="cursor")
        return continuation


def _unknown() -> InvalidRequest:
    return InvalidRequest("not a cursor of this service", field="cursor")
