"""A real S3 service on loopback (moto's server mode), whose buckets tests fill, and which can go and come back."""

from __future__ import annotations

import hashlib
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_plus

import httpx
import pytest

from core.file_cache import FileCache
from core.images.bucket import ImageBucket
from core.images.places import BucketPlace
from core.images.signing import Keys, signed
from tests.ports import free_port

_PATIENCE_S = 60.0
"""moto imports much at its first request."""

KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "us-east-1")


class FakeS3:
    """`requests` are what it was asked, as method and path."""

    def __init__(self) -> None:
        pytest.importorskip("obstore", reason="needs the extra `s3`")
        server = pytest.importorskip("moto.server", reason="needs moto[server]")
        serving = pytest.importorskip("werkzeug.serving", reason="needs moto[server]")
        self._app = server.create_backend_app("s3")
        self._serving = serving
        self.requests: list[tuple[str, str]] = []
        self.refusing: int | None = None
        self.saying: bytes | None = None
        """What is answered to everything, as a page of a proxy is."""
        self.denied: set[str] = set()
        """Paths of addresses: `/bucket/key`."""
        self.refusals = 0
        """So many requests are answered with 503 yet."""
        self._answering = threading.Event()
        self._answering.set()
        self.port = free_port()
        self.http = httpx.Client(trust_env=False, verify=False, timeout=_PATIENCE_S)  # noqa: S501 - plain HTTP
        self._server: Any = None
        self._thread: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.come()
        _backend().reset()
        self.requests.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self.go()
        self.http.close()

    def _answer(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.requests.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        self._answering.wait()
        if environ["PATH_INFO"].encode("latin-1").decode() in self.denied:
            start_response("403 Forbidden", [("Content-Length", "0")])
            return [b""]
        if self.refusals:
            self.refusals -= 1
            start_response("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        if self.refusing is not None:
            start_response(f"{self.refusing} Refused", [("Content-Length", "0")])
            return [b""]
        if self.saying is not None:
            start_response("200 OK", [("Content-Length", str(len(self.saying)))])
            return [self.saying]
        return self._app(environ, start_response)

    @property
    def hanging(self) -> bool:
        """It takes what it is asked, and does not answer."""
        return not self._answering.is_set()

    @hanging.setter
    def hanging(self, hanging: bool) -> None:
        (self._answering.clear if hanging else self._answering.set)()

    def come(self) -> None:
        """Listen, with all that was there before."""

        class Quiet(self._serving.WSGIRequestHandler):  # type: ignore[name-defined,misc]
            def log(self, *_: object) -> None: ...

        self._server = self._serving.make_server("127.0.0.1", self.port, self._answer, threaded=True, request_handler=Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def go(self) -> None:
        """Nobody listens any more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def come_back(self) -> None:
        """If it went away."""
        if self._server is None:
            self.come()

    def bucket(self, name: str = "pictures", prefix: str = "") -> Bucket:
        """A new one."""
        self.http.put(f"{self.endpoint}/{name}").raise_for_status()
        return Bucket(self, BucketPlace(name, prefix, self.endpoint, "us-east-1"))


class Bucket:
    """One bucket as somebody else fills it."""

    def __init__(self, service: FakeS3, place: BucketPlace) -> None:
        self.service = service
        self.place = place

    @property
    def url(self) -> str:
        return f"s3://{self.place.bucket}/{self.place.prefix}".rstrip("/")

    def opened(self, cache: Path, *, max_bytes: int = 2**30, keys: Keys | None = KEYS, **options: Any) -> ImageBucket:
        return ImageBucket(self.place, FileCache(cache, max_bytes=max_bytes), keys=keys, **options)

    def put(self, path: str, content: bytes, content_type: str = "binary/octet-stream") -> str:
        """Returns the image id."""
        self.service.http.put(
            self._signed("PUT", path), content=content, headers={"Content-Type": content_type}
        ).raise_for_status()
        return hashlib.sha256(content).hexdigest()

    def delete(self, path: str) -> None:
        self.service.http.delete(self._signed("DELETE", path)).raise_for_status()

    def fill(self, contents: dict[str, bytes]) -> None:
        """Many at once, past HTTP; and by any name, as no client of ours could."""
        backend = _backend()
        for path, content in contents.items():
            backend.put_object(self.place.bucket, self.place.key(path), content)

    def empty(self) -> None:
        """Of everything, past HTTP."""
        _backend().buckets[self.place.bucket].keys.clear()

    def _signed(self, method: str, path: str) -> str:
        return signed(method, self.place.address(path), {}, KEYS, lifetime_s=60, now=datetime.now(UTC))

    def names(self) -> list[str]:
        """The paths in it, hidden ones included."""
        store = self.opened(Path("/nonexistent"))
        paths = [file.path for page in store._pages("", "") for file in page]
        store.close()
        return paths

    def event(self, name: str, *paths: str, bucket: str | None = None) -> str:
        """A notification as MinIO and Amazon send them."""
        records = [
            {
                "eventVersion": "2.1", "eventSource": "aws:s3", "awsRegion": "us-east-1", "eventName": name, "eventTime": "2026-01-01T00:00:00.000Z",
                "s3": {
                    "s3SchemaVersion": "1.0", "bucket": {"name": bucket or self.place.bucket, "arn": "arn:aws:s3:::b"},
                    "object": {"key": quote_plus(self.place.key(path)), "size": 1, "eTag": "e", "sequencer": "1"},
                },
            }
            for path in paths
        ]  # fmt: skip
        return json.dumps({"Records": records})


def _backend() -> Any:
    """What moto holds, all buckets of it."""
    from moto.s3.models import s3_backends

    return s3_backends["123456789012"]["aws"]
