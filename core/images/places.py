"""What `IMAGES_URL` and its settings say: which bucket, where, and with whose keys."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit, urlunsplit

from core.images.signing import Keys, quoted

_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*))?")
_ODD = re.compile(r"[\x00-\x1f\x7f]|//|(?:^|/)\.{1,2}(?:/|$)|^/|^$")
_REGION = "us-east-1"
_PORTS = {"http": 80, "https": 443}


def is_odd(path: str) -> bool:
    """Whether an object of this name cannot be asked for."""
    return _ODD.search(path) is not None


def endpoint_of(address: str) -> str:
    """As browsers and libraries ask for it: the host is signed, and they write it small, and without the port that goes without saying.

    Raises ValueError where it is no address.
    """
    parts = urlsplit(address.strip())
    if parts.scheme not in _PORTS or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise ValueError("write an S3 service as http://host:port or https://host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in {None, _PORTS[parts.scheme]} else f":{parts.port}"
    return urlunsplit((parts.scheme, host + port, parts.path.rstrip("/"), "", ""))


@dataclass(frozen=True, slots=True)
class BucketPlace:
    """A bucket, and the beginning of the names in it that is ours: without `/` at its ends, '' for all of the bucket."""

    bucket: str
    prefix: str
    endpoint: str
    """Where the service listens, without the bucket, which is the first part of the path."""
    region: str

    @classmethod
    def of(cls, url: str, *, endpoint: str | None = None, environment: Mapping[str, str] = os.environ) -> Self:
        """Raises ValueError where this is no place in a bucket, or the service's address none."""
        found = _URL.fullmatch(url)
        prefix = (found["prefix"] or "").strip("/") if found else ""
        if found is None or any(part in {".", ".."} or (part == "" and prefix) for part in prefix.split("/")):
            raise ValueError(
                "write a bucket as s3://bucket or s3://bucket/prefix, its name in 3 to 63 small letters, digits, dots and hyphens"
            )
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or _REGION
        where = endpoint or environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        return cls(found["bucket"], prefix, endpoint_of(where or f"https://s3.{region}.amazonaws.com"), region)

    @property
    def is_plain_http(self) -> bool:
        return self.endpoint.startswith("http://")

    def key(self, path: str) -> str:
        """The object's name in the bucket."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def path(self, key: str) -> str | None:
        """The path of an object of that name; None of one that is not ours."""
        if not self.prefix:
            return key
        return key[len(self.prefix) + 1 :] if key.startswith(f"{self.prefix}/") else None

    def address(self, path: str | None = None, *, endpoint: str | None = None) -> str:
        """Of the object, or of the bucket."""
        key = "" if path is None else f"/{quoted(self.key(path))}"
        return f"{endpoint or self.endpoint}/{self.bucket}{key}"


def keys_of(place: BucketPlace, environment: Mapping[str, str] = os.environ) -> Keys | None:
    """The keys that the environment names; None where there are none, or where they come from elsewhere (a role, an instance)."""
    access, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access or not secret:
        return None
    return Keys(access, secret, place.region, environment.get("AWS_SESSION_TOKEN") or environment.get("AWS_TOKEN") or None)
