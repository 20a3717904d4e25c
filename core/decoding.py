"""Untrusted bytes are decoded by processes that can die alone.

Decoders are written in C, and read whatever somebody put into a folder or sent over HTTP. A process for them (`core.decoding_process`)
bounds what one picture can cost: a crash, a hang or a flood of memory ends that process, the picture is refused for it, and the next one
finds another process. Bytes and pixels go through memory that both share; answers are JSON, so that a process that was taken over has
nothing but wrong pixels to give.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np
import structlog

from core import decode
from core.decode import DecodedImage, DecodeLimits, Facts
from core.decoding_child import Answer, Child, Died
from core.errors import ImageRejected, Reason, Unavailable
from core.exif import Coordinates
from core.settings import PictureSettings

log = structlog.get_logger()

T = TypeVar("T")

_CRASHES = 2
"""Processes that may crash, or stand still, over a picture before it is refused."""

_KILLS = 6
_PAUSE_S = 0.1
"""Processes that may be killed from outside under a picture, by the out-of-memory killer perhaps, before it is refused; and how long the
second one lets the machine recover. The pause doubles each time: three seconds in all."""

_IDLE_S = 30.0
_RETIRED_FROM_BYTES = 2**29
"""A process that once took so much memory is replaced, since an allocator rarely gives all of it back."""

_FROM_OUTSIDE = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP, -signal.SIGQUIT}


class Decoder(Protocol):
    """A context manager. Blocks on the processor or on a process: call it in an executor. Raises ImageRejected, Unavailable."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...

    def decode(self, image: bytes, *, min_side: int | None = None, max_side: int | None = None) -> DecodedImage:
        """As `core.decode.decode`."""
        ...

    def facts(self, image: bytes, *, min_side: int) -> Facts:
        """All of the picture is decoded, and the pixels dropped."""
        ...

    def location(self, image: bytes) -> Coordinates | None:
        """Of bytes that are no picture, None."""
        ...

    def thumbnail(self, image: bytes, side: int) -> bytes:
        """WEBP, upright, at most `side` pixels a side, never enlarged."""
        ...


class LocalDecoder:
    """Decodes in this very process: for tests, and for who has a wall around it already (`DECODE_ISOLATION=false`)."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        return None

    def decode(self, image: bytes, *, min_side: int | None = None, max_side: int | None = None) -> DecodedImage:
        return decode.decode(image, self._limits, min_side=min_side, max_side=max_side)

    def facts(self, image: bytes, *, min_side: int) -> Facts:
        return decode.upright(image, self._limits, min_side=min_side)[1]

    def location(self, image: bytes) -> Coordinates | None:
        return decode.read_location(image)

    def thumbnail(self, image: bytes, side: int) -> bytes:
        return decode.thumbnail(image, self._limits, side)


class DecodingProcesses:
    """A context manager, and a `Decoder` for any number of threads: as many processes as call at once, started when they are needed.

    One that has nothing to do for `idle_s` is ended. Raises Unavailable where no process can be started, and after the context's end.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        *,
        idle_s: float = _IDLE_S,
        module: str = "core.decoding_process",
        on_death: Callable[[], object] = lambda: None,
    ) -> None:
        """`on_death` is called, on whichever thread it was, for each process that died over a picture."""
        self._limits = limits
        self._on_death = on_death
        self._idle_s = idle_s
        self._module = module
        self._changed = threading.Condition()
        self._children: set[Child] = set()
        self._idle: list[tuple[float, Child]] = []
        self._tender: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Whoever waits for a picture gets Unavailable at once."""
        with self._changed:
            self._closed = True
            idle = [child for _, child in self._idle]
            busy = self._children.difference(idle)
            self._idle.clear()
            self._changed.notify_all()
        for child in busy:
            child.kill()
        for child in idle:
            self._end(child)

    @property
    def pids(self) -> set[int]:
        """The living processes."""
        with self._changed:
            return {child.pid for child in self._children}

    def decode(self, image: bytes, *, min_side: int | None = None, max_side: int | None = None) -> DecodedImage:
        return self._asked("decode", image, {"min_side": min_side, "max_side": max_side}, _decoded)

    def facts(self, image: bytes, *, min_side: int) -> Facts:
        return self._asked("facts", image, {"min_side": min_side}, lambda answer, _: _facts(answer))

    def location(self, image: bytes) -> Coordinates | None:
        try:
            return self._asked("location", image, {}, lambda answer, _: _coordinates(answer["location"]))
        except ImageRejected:
            return None

    def thumbnail(self, image: bytes, side: int) -> bytes:
        return self._asked("thumbnail", image, {"side": side}, lambda answer, child: bytes(child.made(answer["bytes"])))

    # --- one picture

    def _asked(self, call: str, image: bytes, options: Mapping[str, Any], read: Callable[[Answer, Child], T]) -> T:
        decode.check_bytes(image, self._limits)
        deaths: list[int] = []
        while True:
            child = self._take()
            try:
                answer = child.ask(call, image, options)
                if "rejected" in answer:
                    raise ImageRejected(Reason(answer["rejected"]), str(answer["detail"]))  # noqa: TRY301
                made = read(answer, child)
            except ImageRejected:
                self._give_back(child)
                raise
            except Died as died:
                self._end(child)
                deaths.append(died.code)
                self._judge(image, deaths)
            except Exception:  # noqa: BLE001 - what it answers cannot be read: who knows what runs there
                self._end(child)
                deaths.append(0)
                self._judge(image, deaths)
            else:
                self._give_back(child)
                return made

    def _judge(self, image: bytes, deaths: list[int]) -> None:
        """Return if the picture gets another process. Raises ImageRejected when it has had enough, Unavailable after the context's end."""
        if self._closed:
            raise Unavailable("the service is stopping")
        self._on_death()
        log.warning("decoder_died", code=deaths[-1], time=len(deaths), image_id=hashlib.sha256(image).hexdigest())
        crashes = sum(code not in _FROM_OUTSIDE for code in deaths)
        if deaths[-1] == -signal.SIGPROF or (deaths[-1] == -signal.SIGALRM and crashes >= _CRASHES):
            raise ImageRejected(Reason.TOO_SLOW, f"decoding it takes more than {self._limits.max_seconds:g} seconds")
        if crashes >= _CRASHES or len(deaths) >= _KILLS:
            raise ImageRejected(Reason.CRASHES_DECODER, "decoding it ended the process that it was decoded in")
        if deaths[-1] in _FROM_OUTSIDE:
            time.sleep(_PAUSE_S * 2 ** (len(deaths) - 1))

    # --- the processes

    def _take(self) -> Child:
        with self._changed:
            if self._closed:
                raise Unavailable("the service is stopping")
            if self._idle:
                return self._idle.pop()[1]
        try:
            child = Child(self._limits, self._module)
        except (OSError, ValueError, Died) as error:
            log.warning("decoder_not_started", error=str(error))
            raise Unavailable("no process to decode pictures in can be started") from None
        with self._changed:
            closed = self._closed
            self._children.add(child)
            if self._tender is None and not closed:
                tender = threading.Thread(target=self._tend, name="decoders", daemon=True)
                with suppress(RuntimeError):  # no thread is to be had: whoever starts the next process tries again
                    tender.start()
                    self._tender = tender
        if closed:
            child.kill()
        return child

    def _give_back(self, child: Child) -> None:
        if child.peak_bytes >= _RETIRED_FROM_BYTES:
            self._end(child)
            return
        child.rest()
        with self._changed:
            if not self._closed:
                self._idle.append((time.monotonic() + self._idle_s, child))
                return
        self._end(child)

    def _end(self, child: Child) -> None:
        child.end()
        with self._changed:
            self._children.discard(child)
            self._changed.notify_all()

    def _tend(self) -> None:
        """End who has been idle for long, until there is nobody."""
        while True:
            with self._changed:
                if self._closed or not self._children:
                    self._tender = None
                    return
                now = time.monotonic()
                due = [child for until, child in self._idle if until <= now]
                self._idle = [(until, child) for until, child in self._idle if until > now]
                if not due:
                    self._changed.wait(min((until - now for until, _ in self._idle), default=self._idle_s))
            for child in due:
                self._end(child)


def decoder_of(settings: PictureSettings, *, on_death: Callable[[], object] = lambda: None) -> Decoder:
    """To be entered."""
    limits = DecodeLimits(
        max_bytes=settings.max_image_bytes,
        max_pixels=settings.max_image_pixels,
        max_seconds=settings.decode_timeout_s,
        max_memory_bytes=settings.decode_memory_bytes,
    )
    return DecodingProcesses(limits, on_death=on_death) if settings.decode_isolation else LocalDecoder(limits)


def _decoded(answer: Answer, child: Child) -> DecodedImage:
    height, width = map(int, answer["shape"])
    pixels = np.frombuffer(child.made(height * width * 3), dtype=np.uint8).reshape(height, width, 3)
    return DecodedImage(pixels, _facts(answer))


def _facts(answer: Answer) -> Facts:
    width, height, image_format, taken_at, location = answer["facts"]
    moment = None if taken_at is None else datetime.fromisoformat(taken_at)
    return Facts(int(width), int(height), str(image_format), moment, _coordinates(location))


def _coordinates(told: Any) -> Coordinates | None:
    return None if told is None else Coordinates(*map(float, told))
