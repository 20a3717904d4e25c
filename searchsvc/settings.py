"""Settings of the search service."""

from __future__ import annotations

import re
from ipaddress import ip_network
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import NoDecode

from core.hosts import is_loopback
from core.images.places import endpoint_of
from core.replicas.addresses import ModelAddresses
from core.settings import FolderSettings, parts
from searchsvc.api_keys import StoredKey
from searchsvc.secret import SHORTEST_SAFE_BYTES, is_guessable, is_other_key

_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_KEYS = 16
_OTHER_KEY = "this is a key or certificate of another kind (PEM, SSH or JWK): take random text, such as `openssl rand -hex 32`"


class SearchSettings(ModelAddresses, FolderSettings):
    """The public API and the page."""

    port: int = Field(default=3000, ge=0, le=65535, description="port of the page and the API")
    watcher_url: str = Field(
        default="http://127.0.0.1:8002", description="the watcher; unused standalone, where both share a process"
    )

    jwt_secret: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="key of the feedback tokens (HS256), of 32 bytes or more, a shorter one is warned of; unset: made once and kept in"
        " `DATA_DIR/jwt_secret`",
    )
    jwt_secrets: Annotated[tuple[tuple[str, str], ...], NoDecode] = Field(
        default=(),
        repr=False,
        description="comma-separated `name:key`, instead of or above `JWT_SECRET`: the first key signs, all of them verify (at least"
        " 32 bytes each)",
    )
    jwt_ttl_s: int = Field(
        default=86_400, ge=1, le=31_536_000, description="how long a search can be rated, and its pages be gone through"
    )
    jwt_issuer: str = Field(default="imagesearch", min_length=1, description="`iss` of the feedback tokens")
    jwt_audience: str = Field(default="imagesearch-feedback", min_length=1, description="`aud` of the feedback tokens")

    api_keys: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        repr=False,
        description="comma-separated bearer keys that may write, plain or as `sha256:...` (`make key`); needed beyond loopback",
    )

    searches_per_s: float = Field(
        default=50.0, gt=0, description="searches a second that one client may make in the long run (429); 20 s' worth at once"
    )
    ratings_per_s: float = Field(default=50.0, gt=0, description="the same for ratings")
    writes_per_s: float = Field(default=50.0, gt=0, description="the same for uploads, deletions, and segmenting again")
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="comma-separated addresses or networks of proxies whose `X-Forwarded-For` is believed; of nobody else's it is",
    )

    feedback_reranking: Literal["off", "known", "on"] = Field(
        default="known",
        description="whose ratings turn the same and near-same queries: nobody's, those of API keys (without keys, of this machine on"
        " loopback), or everybody's",
    )

    near_duplicate_similarity: float = Field(
        default=0.98,
        gt=0,
        le=1,
        description="least cosine similarity of two pictures that `collapse` takes for one; suits `starter`",
    )

    max_requests: int = Field(
        default=64, ge=1, le=4096, description="searches and ratings answered at once; more are refused with 503"
    )
    max_uploads: int = Field(default=8, ge=1, le=256, description="pictures received at once; more are refused with 503")
    receive_timeout_s: float = Field(default=60.0, gt=0, description="longest pause within an upload")
    query_timeout_s: float = Field(default=30.0, gt=0, description="longest time for one search")
    thumbnails_max_bytes: int = Field(
        default=2 * 2**30, ge=2**20, description="how much disk the kept thumbnails may take; the least lately used go first"
    )
    images_links: Literal["presigned", "stream"] = Field(
        default="presigned",
        description="how pictures of a bucket are fetched: `presigned`: from the bucket, by a link that soon runs out; `stream`: through"
        " this service",
    )
    images_link_s: int = Field(default=300, ge=1, le=604_800, description="how long such a link holds")
    images_link_endpoint: str | None = Field(
        default=None,
        description="the S3 service as browsers reach it, e.g. `https://s3.example.org`, if not by `IMAGES_S3_ENDPOINT`",
    )
    max_event_streams: int = Field(default=32, ge=1, le=1024, description="listeners to `/api/v1/events` at once")

    @field_validator("images_link_endpoint")
    @classmethod
    def _as_browsers_ask(cls, value: str | None) -> str | None:
        return endpoint_of(value) if value else None

    @field_validator("feedback_reranking", mode="before")
    @classmethod
    def _folded(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("api_keys", "trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return parts(value) if isinstance(value, str) else value

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ip_network(network, strict=False)
        return value

    @field_validator("api_keys")
    @classmethod
    def _readable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for configured in value:
            StoredKey.of(configured)
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _can_sign(cls, value: str | None) -> str | None:
        if value is not None and is_other_key(value):
            raise ValueError(_OTHER_KEY)
        return value

    @field_validator("jwt_secrets", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        return tuple(part.partition(":")[::2] for part in parts(value)) if isinstance(value, str) else value

    @field_validator("jwt_secrets")
    @classmethod
    def _told_apart(cls, value: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
        names, secrets = [name for name, _ in value], [secret for _, secret in value]
        if not all(_KEY_NAME.fullmatch(name) for name in names):
            raise ValueError("write each key as name:key, the name of letters, digits, - and _")
        if len(set(names)) < len(names) or len(set(secrets)) < len(secrets):
            raise ValueError("each name and each key may stand once")
        if any(len(secret.encode()) < SHORTEST_SAFE_BYTES or is_guessable(secret) for secret in secrets):
            raise ValueError(
                f"each key needs at least {SHORTEST_SAFE_BYTES} bytes that nobody guesses, such as `openssl rand -hex 32`"
            )
        if any(is_other_key(secret) for secret in secrets):
            raise ValueError(_OTHER_KEY)
        if len(value) > _MOST_KEYS:
            raise ValueError(f"at most {_MOST_KEYS} keys")
        return value

    @model_validator(mode="after")
    def _safe_beyond_loopback(self) -> Self:
        if self.jwt_secret is not None and not is_loopback(self.host) and is_guessable(self.jwt_secret):
            raise ValueError(
                "JWT_SECRET can be guessed, and the service listens beyond loopback: take at least 32 random bytes, such as"
                " `openssl rand -hex 32`, or leave it unset, and one is made"
            )
        return self
