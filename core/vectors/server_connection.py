"""The connection to a Qdrant server: which protocol, and what its refusals mean."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Awaitable
from typing import TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]  # ships no types
import httpx
import structlog
from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from core.errors import InvalidRequest, VectorsUnavailable

log = structlog.get_logger()

T = TypeVar("T")

_REST_PORT = 6333
_GRPC_SHARE = 0.2
"""Of the time-out, in which gRPC must show itself: behind a firewall its port is silent, and there must be time left for REST."""

_REFUSED_KEY = "Qdrant refuses the key: set QDRANT_API_KEY to that of the server"


_NOT_QDRANT = "what answers for Qdrant is not Qdrant"


class Absent(InvalidRequest):
    """The server knows no such collection."""


class KeyRefused(VectorsUnavailable):
    """The server wants another key; to ask again at once is of no use."""


class ServerConnection:
    """To one node. Makes the client at the first call that finds the server up, so neither has to start before the other."""

    def __init__(
        self, url: str, *, api_key: str | None, prefer_grpc: bool, timeout_s: float, client: AsyncQdrantClient | None = None
    ) -> None:
        self._url = url
        self._headers = {} if api_key is None else {"api-key": api_key}
        self._prefer_grpc = prefer_grpc
        self._timeout_s = timeout_s
        self._client = client
        self._closed = False
        self._certificates: ssl.SSLContext | None = None
        self._choosing = asyncio.Lock()

    async def client(self) -> AsyncQdrantClient:
        """Raises VectorsUnavailable while the server answers on neither port, and after `close`."""
        if self._closed:
            raise VectorsUnavailable("The connection to Qdrant is closed")
        if self._client is None:
            async with self._choosing:
                if self._client is None:
                    self._client = await self._choose()
        return self._client

    async def close(self) -> None:
        self._closed = True
        if self._client is not None:
            await self._client.close()

    async def _choose(self) -> AsyncQdrantClient:
        """The port of gRPC stands next to that of REST by Qdrant's convention; what answers there must be Qdrant of the same version."""
        if self._certificates is None and urlsplit(self._url).scheme == "https":
            self._certificates = await asyncio.to_thread(httpx.create_ssl_context)
        rest = self._make(prefer_grpc=False)
        version = await self._version(rest)
        if version is None:
            raise VectorsUnavailable("Qdrant does not answer")
        if self._prefer_grpc and await self._listens(self._grpc_port):
            over_grpc = self._make(prefer_grpc=True)
            if await self._version(over_grpc, within_s=self._timeout_s * _GRPC_SHARE) == version:
                await rest.close()
                log.info("qdrant_connected", protocol="grpc", version=version)
                return over_grpc
        log.info("qdrant_connected", protocol="rest", version=version)
        return rest

    @property
    def _grpc_port(self) -> int:
        return (urlsplit(self._url).port or _REST_PORT) + 1

    def _make(self, *, prefer_grpc: bool) -> AsyncQdrantClient:
        return AsyncQdrantClient(
            url=self._url,
            grpc_port=self._grpc_port,
            prefer_grpc=prefer_grpc,
            headers=self._headers,  # not `api_key`, which warns on every plain-HTTP network of containers
            timeout=math.ceil(self._timeout_s),
            check_compatibility=False,  # it warns from a thread of its own; `qdrant_connected` names the version
            verify=self._certificates or False,  # left alone it reads all certificates, over HTTP too: 30 ms of the loop
        )

    async def _version(self, client: AsyncQdrantClient, *, within_s: float | None = None) -> str | None:
        """The version of what answers; None closes the client."""
        try:
            async with asyncio.timeout(within_s):
                return (await answered(client.info())).version
        except (VectorsUnavailable, InvalidRequest, TimeoutError) as error:
            log.info("qdrant_not_reached", error=str(error))
        await client.close()
        return None

    async def _listens(self, port: int) -> bool:
        """A gRPC client retries a closed port until its time-out; a connection attempt tells at once."""
        try:
            async with asyncio.timeout(self._timeout_s * _GRPC_SHARE):
                _, writer = await asyncio.open_connection(urlsplit(self._url).hostname, port)
        except OSError:
            return False
        writer.close()
        return True


async def answered(call: Awaitable[T]) -> T:
    """The server's answer. Raises VectorsUnavailable if there is none, InvalidRequest if it refuses, Absent for a missing collection."""
    try:
        return await call
    except UnexpectedResponse as error:
        raise _refusal(error.status_code or 500, error) from error
    except grpc.RpcError as error:
        raise _refusal(_HTTP_OF_GRPC.get(error.code(), 500), error) from error
    except (ResponseHandlingException, QdrantException, RuntimeError) as error:
        log.info("qdrant_unreachable", error=repr(error), cause=repr(getattr(error, "source", None)))
        raise VectorsUnavailable("Qdrant does not answer") from error
    except (
        AssertionError,
        AttributeError,
        KeyError,
        TypeError,
    ) as error:  # the client takes it for granted that it is Qdrant that answers
        log.warning("qdrant_unintelligible", error=repr(error))
        raise VectorsUnavailable(_NOT_QDRANT) from error


_PASSING = {408, 412, 425, 429}
"""Refusals of the moment: 412 is what a cluster says while too few replicas are there."""

_HTTP_OF_GRPC = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
}


def _refusal(status: int, error: Exception) -> Exception:
    log.info("qdrant_refused", status=status, error=str(error))
    if status in {401, 403}:
        return KeyRefused(_REFUSED_KEY, retry_after_s=30.0)
    if status == 404:
        return Absent("Qdrant has no such collection") if _is_of_qdrant(error) else VectorsUnavailable(_NOT_QDRANT)
    if 400 <= status < 500 and status not in _PASSING:
        return InvalidRequest("Qdrant refuses the request; the log says why")
    return VectorsUnavailable("Qdrant does not answer")


def _is_of_qdrant(error: Exception) -> bool:
    """Whether it is Qdrant that knows no such thing, and not a proxy that knows no Qdrant."""
    if not isinstance(error, UnexpectedResponse):
        return True
    try:
        said: object = error.structured()
    except ValueError:
        return False
    return isinstance(said, dict) and "status" in said
