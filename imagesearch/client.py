"""The two clients: the same operations, blocking and awaited."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from ipaddress import ip_address
from threading import TIMEOUT_MAX
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from imagesearch.errors import Refused
from imagesearch.operations import Operations
from imagesearch.steps import Pause, Retrying, Send, Steps, Work
from searchsvc.search_schema import SearchAnswer

DEFAULT_URL = "http://127.0.0.1:3000"
_CONNECT_TIMEOUT_S = 5.0

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


class _Connection:
    """What both clients are made of: address, key, time-outs, retries."""

    def __init__(self, url: str | None, api_key: str | None, timeout_s: float, retrying: Retrying | None) -> None:
        self.url = (url or os.environ.get("IMAGESEARCH_URL") or DEFAULT_URL).rstrip("/")
        address = _address(self.url)
        key = api_key or os.environ.get("IMAGESEARCH_API_KEY")
        if key and not (key.isascii() and key.isprintable()):
            raise ValueError("the API key holds what no header can, such as the end of a line")
        if not 0 < timeout_s <= TIMEOUT_MAX:
            raise ValueError(f"timeout_s is no time to wait: {timeout_s}")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.timeout = httpx.Timeout(timeout_s, connect=min(timeout_s, _CONNECT_TIMEOUT_S))
        self.trust_env = not _is_loopback(address.host)
        """A proxy that the environment names cannot reach this machine's loopback."""
        self.over_tls = address.scheme == "https"
        """Over plain HTTP no certificate is looked at, and to read those of all authorities takes longer than a search."""
        self.operations = Operations(retrying or Retrying())


def _address(url: str) -> httpx.URL:
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL()
    if address.scheme not in {"http", "https"} or not address.host:
        raise ValueError(f"not the address of a service, such as {DEFAULT_URL}: {url}")
    return address


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _blocking(operation: Callable[Concatenate[Operations, P], Steps[ResultT]]) -> Callable[Concatenate[Client, P], ResultT]:
    @wraps(operation)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return self._run(operation(self._connection.operations, *args, **kwargs))

    return method


def _awaited(
    operation: Callable[Concatenate[Operations, P], Steps[ResultT]],
) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, ResultT]]:
    @wraps(operation)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> ResultT:
        return await self._run(operation(self._connection.operations, *args, **kwargs))

    return method


class Client:
    """Blocks. A context manager; one may be shared by threads."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 60.0, retrying: Retrying | None = None
    ) -> None:
        """`url` and `api_key` default to IMAGESEARCH_URL and IMAGESEARCH_API_KEY. Raises ValueError for an address, a key or a time that is none.

        `timeout_s` bounds each wait for the service: for a connection (5 s at most), for the next bytes, for taking them.
        """
        self._connection = _Connection(url, api_key, timeout_s, retrying)
        self._http = httpx.Client(
            base_url=self._connection.url,
            headers=self._connection.headers,
            timeout=self._connection.timeout,
            trust_env=self._connection.trust_env,
            verify=self._connection.over_tls,
        )

    @property
    def url(self) -> str:
        return self._connection.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the connections; a client that is not used by `with` needs it."""
        self._http.close()

    search = _blocking(Operations.search)
    ask = _blocking(Operations.ask)
    more = _blocking(Operations.more)
    compare = _blocking(Operations.compare)
    rate = _blocking(Operations.rate)
    export = _blocking(Operations.export)
    upload = _blocking(Operations.upload)
    add = _blocking(Operations.add)
    image = _blocking(Operations.image)
    image_states = _blocking(Operations.image_states)
    notice = _blocking(Operations.notice)
    embeddings = _blocking(Operations.embeddings)
    analyses = _blocking(Operations.analyses)
    import_embeddings = _blocking(Operations.import_embeddings)
    segments = _blocking(Operations.segments)
    file = _blocking(Operations.file)
    thumbnail = _blocking(Operations.thumbnail)
    mask = _blocking(Operations.mask)
    delete = _blocking(Operations.delete)
    status = _blocking(Operations.status)
    failures = _blocking(Operations.failures)
    models = _blocking(Operations.models)
    turn_models = _blocking(Operations.turn_models)

    def pages(self, answer: SearchAnswer) -> Iterator[SearchAnswer]:
        """An answer and all that follow, each asked for when it is its turn."""
        page: SearchAnswer | None = answer
        while page is not None:
            yield page
            page = self.more(page)

    def _run(self, steps: Steps[ResultT]) -> ResultT:
        outcome: object = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as ended:
                result: ResultT = ended.value
                return result
            outcome = self._done(step)

    def _done(self, step: Send | Pause | Work) -> object:
        match step:
            case Pause(seconds):
                time.sleep(seconds)
                return None
            case Work(call):
                return call()
            case Send():
                try:
                    return self._http.send(_request(self._http, step))
                except (httpx.HTTPError, Refused) as error:
                    return error


class AsyncClient:
    """Awaits. An async context manager of one event loop; what touches the disk runs in a thread."""

    def __init__(
        self, url: str | None = None, *, api_key: str | None = None, timeout_s: float = 60.0, retrying: Retrying | None = None
    ) -> None:
        """As `Client`."""
        self._connection = _Connection(url, api_key, timeout_s, retrying)
        self._http = httpx.AsyncClient(
            base_url=self._connection.url,
            headers=self._connection.headers,
            timeout=self._connection.timeout,
            trust_env=self._connection.trust_env,
            verify=self._connection.over_tls,
        )

    @property
    def url(self) -> str:
        return self._connection.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the connections; a client that is not used by `async with` needs it."""
        await self._http.aclose()

    search = _awaited(Operations.search)
    ask = _awaited(Operations.ask)
    more = _awaited(Operations.more)
    compare = _awaited(Operations.compare)
    rate = _awaited(Operations.rate)
    export = _awaited(Operations.export)
    upload = _awaited(Operations.upload)
    add = _awaited(Operations.add)
    image = _awaited(Operations.image)
    image_states = _awaited(Operations.image_states)
    notice = _awaited(Operations.notice)
    embeddings = _awaited(Operations.embeddings)
    analyses = _awaited(Operations.analyses)
    import_embeddings = _awaited(Operations.import_embeddings)
    segments = _awaited(Operations.segments)
    file = _awaited(Operations.file)
    thumbnail = _awaited(Operations.thumbnail)
    mask = _awaited(Operations.mask)
    delete = _awaited(Operations.delete)
    status = _awaited(Operations.status)
    failures = _awaited(Operations.failures)
    models = _awaited(Operations.models)
    turn_models = _awaited(Operations.turn_models)

    async def pages(self, answer: SearchAnswer) -> AsyncIterator[SearchAnswer]:
        """As `Client.pages`."""
        page: SearchAnswer | None = answer
        while page is not None:
            yield page
            page = await self.more(page)

    async def _run(self, steps: Steps[ResultT]) -> ResultT:
        outcome: object = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as ended:
                result: ResultT = ended.value
                return result
            outcome = await self._done(step)

    async def _done(self, step: Send | Pause | Work) -> object:
        match step:
            case Pause(seconds):
                await asyncio.sleep(seconds)
                return None
            case Work(call):
                return await asyncio.to_thread(call)
            case Send():
                try:
                    return await self._http.send(_request(self._http, step))
                except (httpx.HTTPError, Refused) as error:
                    return error


def _request(http: httpx.Client | httpx.AsyncClient, step: Send) -> httpx.Request:
    """Raises Refused for what cannot be written: text that is no Unicode, a number that is none."""
    try:
        return _built(http, step)
    except ValueError as error:
        raise Refused(f"this cannot be sent: {error}") from None


def _built(http: httpx.Client | httpx.AsyncClient, step: Send) -> httpx.Request:
    headers = {"Accept": step.accept}
    if not step.files:
        return http.build_request(step.method, step.path, params=step.query or None, json=step.json, headers=headers)
    files = [("file", file) for file in step.files]
    return http.build_request(step.method, step.path, data=dict(step.form or {}), files=files, headers=headers)
