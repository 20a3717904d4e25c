"""Signed proof of a search: who rates must hold the token that came with the results (RFC 7519, HS256)."""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from uuid import uuid4

import jwt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.errors import Unauthorized
from core.schemas import ImageId
from searchsvc.keys import Key, KeyRing
from searchsvc.secret import SHORTEST_SAFE_BYTES

_ALGORITHM = "HS256"
_REQUIRED = ["iss", "aud", "iat", "exp", "jti", "sid", "query", "model", "ids", "about"]

MAX_TOKEN_CHARACTERS = 32_768
"""100 ids with scores and two texts of 1,000 four-byte characters make 22,000."""

_CLOCKS_DIFFER_S = 60
"""Between two machines that issue and verify; a token may seem to be issued so far ahead."""

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

_ShortText = Annotated[str, Field(min_length=1, max_length=256)]


@dataclass(frozen=True, slots=True)
class ShownSearch:
    """What a token vouches for. `scores` are those of `shown`, the first of which has rank `first_rank`; `rotation` is in degrees."""

    search_id: str
    query: Mapping[str, Any]
    model: str
    shown: Sequence[str]
    about: Literal["search", "match"] = "search"
    segment: int | None = None
    model_name: str | None = None
    scores: Sequence[float] = ()
    first_rank: int = 1
    rotation: float = 0.0


class Claims(BaseModel):
    """A verified token's content."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")

    jti: _ShortText
    sid: _ShortText
    query: dict[str, Any]
    model: _ShortText
    ids: list[ImageId] = Field(max_length=1000)
    about: Literal["search", "match"]
    segment: int | None = None
    name: _ShortText | None = None
    scores: list[float] = Field(default_factory=list, max_length=1000)
    rank: int = Field(default=1, ge=1)
    rotation: float = 0.0

    @property
    def rated_image(self) -> str | None:
        """The image that a match's own token is about."""
        return self.ids[0] if self.about == "match" and self.ids else None


class TokenSigner:
    """Issues and verifies. `clock` gives seconds since the epoch."""

    def __init__(self, keys: KeyRing, *, issuer: str, audience: str, ttl_s: int, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._ttl_s = ttl_s
        self._clock = clock
        self._jws = jwt.PyJWS(algorithms=[_ALGORITHM])
        self._jwt = jwt.PyJWT()

    def issue(self, search: ShownSearch) -> str:
        """A token that can be spent once, until it expires."""
        issued_at = int(self._clock())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "iat": issued_at,
            "exp": issued_at + self._ttl_s,
            "jti": uuid4().hex,
            "sid": search.search_id,
            "query": dict(search.query),
            "model": search.model,
            "ids": list(search.shown),
            "about": search.about,
            "name": search.model_name,
            "scores": [round(score, 6) for score in search.scores],
            "rank": search.first_rank,
            "rotation": round(search.rotation, 3),
        }
        if search.segment is not None:
            claims["segment"] = search.segment
        payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False).encode()
        key = self._keys.signing
        named = None if key.kid is None else {"kid": key.kid}
        with _short_key_accepted(key):
            return self._jws.encode(payload, key.secret, algorithm=_ALGORITHM, headers=named)

    def verify(self, token: object) -> Claims:
        """Raises Unauthorized for everything but an untouched, unexpired token of ours."""
        if not isinstance(token, str) or not token:
            raise Unauthorized("the `jwt` of a search is needed to rate it")
        if len(token) > MAX_TOKEN_CHARACTERS or not _COMPACT.fullmatch(token) or not _is_canonical(token):
            raise _not_ours()
        if (key := self._keys.named(_kid(token))) is None:
            raise _not_ours()
        try:
            with _short_key_accepted(key):
                decoded = self._jwt.decode(
                    token,
                    key.secret,
                    algorithms=[_ALGORITHM],
                    audience=self._audience,
                    issuer=self._issuer,
                    options={
                        "require": _REQUIRED,
                        "verify_exp": False,
                        "verify_iat": False,
                        "verify_nbf": False,
                        "strict_aud": True,
                    },
                )
            claims = Claims.model_validate(decoded)
            self._check_times(decoded)
        except (jwt.PyJWTError, ValidationError, RecursionError):
            raise _not_ours() from None
        return claims

    def _check_times(self, decoded: Mapping[str, Any]) -> None:
        """Against this signer's own clock, so that tests need not wait."""
        times = issued_at, expires_at, begins_at = decoded["iat"], decoded["exp"], decoded.get("nbf", 0)
        if any(type(at) is not int for at in times) or max(issued_at, begins_at) > self._clock() + _CLOCKS_DIFFER_S:
            raise jwt.InvalidTokenError("times are not whole seconds, or lie ahead")
        if self._clock() >= expires_at:
            raise Unauthorized("the `jwt` has expired: search again")


@contextmanager
def _short_key_accepted(key: Key) -> Iterator[None]:
    """A short JWT_SECRET is warned of once, at the start (`searchsvc.secret`), not at each token."""
    if len(key.secret) >= SHORTEST_SAFE_BYTES:
        yield
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jwt.InsecureKeyLengthWarning)
        yield


def _not_ours() -> Unauthorized:
    return Unauthorized("the `jwt` is not a token of this service")


def _kid(token: str) -> str | None:
    """The name of the key that the token says it was signed with.

    The header is unproven at this moment, so it may be nothing but what we write: no addresses of keys, no keys, no algorithm but ours.
    Claims that say a thing twice are refused as well: nobody should have to know which of them a library believes. Raises Unauthorized.
    """
    try:
        header, _ = (json.loads(_decoded(part), object_pairs_hook=_once) for part in token.split(".")[:2])
        return _Header.model_validate(header).kid
    except (ValueError, RecursionError):
        raise _not_ours() from None


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    alg: Literal["HS256"]
    typ: Literal["JWT"] = "JWT"
    kid: _ShortText | None = None


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    told = dict(pairs)
    if len(told) != len(pairs):
        raise ValueError("a name stands twice")
    return told


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _is_canonical(token: str) -> bool:
    """Base64 has several spellings of the same bytes; only the one that we wrote counts."""
    for part in token.split("."):
        try:
            decoded = _decoded(part)
        except (ValueError, binascii.Error):
            return False
        if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
            return False
    return True
