"""Small pictures for lists: made once, kept on the disk, forgotten with the image."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from core.errors import ImageRejected, NotFound, Overloaded
from core.file_cache import FileCache
from searchsvc.metrics import SearchMetrics
from searchsvc.originals import Originals

SIZES: Sequence[int] = (128, 256, 512)
DEFAULT_SIZE = 256

_THREADS = 2
_MOST_WAITING = 512

Render = Callable[[bytes, int], bytes]
"""A picture and the wanted long side to WEBP. Raises ImageRejected."""


class Thumbnails:
    """An async context manager; decoding runs in its own threads, and two that ask for the same one share the work."""

    def __init__(self, cache: FileCache, *, originals: Originals, render: Render, max_bytes: int, metrics: SearchMetrics) -> None:
        self._cache = cache
        self._originals = originals
        self._render = render
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="thumbnails")
        self._under_way: dict[tuple[str, int], asyncio.Future[bytes]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await asyncio.get_running_loop().run_in_executor(None, lambda: self._executor.shutdown(cancel_futures=True))

    async def get(self, image_id: str, paths: Sequence[str], size: int) -> bytes:
        """A WEBP of at most `size` pixels a side. Raises NotFound, Overloaded."""
        key = (image_id, size)
        if (known := self._under_way.get(key)) is not None:
            return await asyncio.shield(known)
        if len(self._under_way) >= _MOST_WAITING:
            raise Overloaded("too many thumbnails are being made", retry_after_s=1)
        making = asyncio.get_running_loop().run_in_executor(self._executor, self._get, image_id, list(paths), size)
        self._under_way[key] = making
        making.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(making)

    async def forget(self, image_id: str) -> None:
        """Remove what is kept of a deleted image."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._forget, image_id)

    async def kept(self, part: str) -> list[str]:
        """Ids of the images that begin with these two digits and have a thumbnail."""
        names = await asyncio.get_running_loop().run_in_executor(self._executor, self._cache.names, part)
        return sorted({name.partition("-")[0] for name in names})

    def _finished(self, key: tuple[str, int], done: asyncio.Future[bytes]) -> None:
        self._under_way.pop(key, None)
        if not done.cancelled():
            done.exception()  # read here, because everybody who waited may have gone

    def _get(self, image_id: str, paths: Sequence[str], size: int) -> bytes:
        name = _file_name(image_id, size)
        kept = _whole(self._cache.get(name))
        self._metrics.note_lookup("thumbnails", hit=kept is not None)
        if kept is not None:
            return kept
        made = self._make(image_id, paths, size)
        self._cache.keep(name, made)
        return made

    def _make(self, image_id: str, paths: Sequence[str], size: int) -> bytes:
        """Of this very picture: its file may hold another by now, whose thumbnail would be kept for this one's."""
        try:
            return self._render(self._originals.read_first(image_id, paths, most_bytes=self._max_bytes), size)
        except ImageRejected:
            raise NotFound("there is no thumbnail of a picture that cannot be read") from None

    def _forget(self, image_id: str) -> None:
        for size in SIZES:
            self._cache.forget(_file_name(image_id, size))


def _whole(webp: bytes | None) -> bytes | None:
    """A power cut may leave less of a file than was written, or zeros in its place; a WEBP begins with its length."""
    is_whole = webp is not None and webp[:4] == b"RIFF" and int.from_bytes(webp[4:8], "little") + 8 == len(webp)
    return webp if is_whole else None


def _file_name(image_id: str, size: int) -> str:
    return f"{image_id}-{size}.webp"
