"""Signed addresses of an S3 service (AWS Signature Version 4, in the query), which anybody can fetch until they run out.

obstore signs addresses, too, but with nothing in their query: neither what a browser is to be told of the file, nor which page of a
listing is wanted. https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """Of whoever signs. `session_token` comes with keys that run out."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str
    session_token: str | None = field(default=None, repr=False)


def signed(method: str, address: str, query: Mapping[str, str], keys: Keys, *, lifetime_s: int, now: datetime) -> str:
    """`address` has a scheme, a host, and a path as it goes over the wire (`quoted`). `now` is in UTC."""
    host, path = urlsplit(address).netloc, urlsplit(address).path
    scope = f"{now:%Y%m%d}/{keys.region}/s3/aws4_request"
    told = {
        **query,
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.access_key_id}/{scope}",
        "X-Amz-Date": f"{now:%Y%m%dT%H%M%SZ}",
        "X-Amz-Expires": str(lifetime_s),
        "X-Amz-SignedHeaders": "host",
        **({"X-Amz-Security-Token": keys.session_token} if keys.session_token else {}),
    }
    asked = "&".join(f"{quoted(name, safe='')}={quoted(value, safe='')}" for name, value in sorted(told.items()))
    request = "\n".join((method, path, asked, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))
    to_sign = "\n".join((_ALGORITHM, told["X-Amz-Date"], scope, hashlib.sha256(request.encode()).hexdigest()))
    key = f"AWS4{keys.secret_access_key}".encode()
    for part in scope.split("/"):
        key = _mac(key, part)
    return f"{address}?{asked}&X-Amz-Signature={_mac(key, to_sign).hex()}"


def quoted(text: str, *, safe: str = "/") -> str:
    """As Amazon spells it: all but letters, digits and `-._~`."""
    return quote(text, safe=safe + "-._~")


def _mac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
