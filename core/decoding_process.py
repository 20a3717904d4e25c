"""`python -m core.decoding_process`: decodes what its parent hands over, and dies alone when that goes wrong (`core.decoding`).

Before the first byte of a picture comes, it gives up what it does not need: further files and sockets, memory beyond the bound, core
dumps. Each picture has a time, after which the kernel ends the process, whatever a decoder is doing and whether the parent lives or not.
It ends when its standard input does.
"""

from __future__ import annotations

import _strptime  # type: ignore[import-not-found]  # noqa: F401 - datetime.strptime imports it when first asked, and no file can be opened by then
import json
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from core import decode
from core.decode import DecodeLimits, Facts
from core.errors import ImageRejected, Reason

_HANGS = 3.0
"""Times the bound on processor time after which a picture that does not even use it is given up."""

_STATUS_BYTES = 8192

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Work:
    """The `arena` is shared with the parent: bytes lie at its start when a request comes, and what was made of them afterwards."""

    arena: mmap.mmap
    limits: DecodeLimits

    def decode(self, image: bytes, *, min_side: int | None, max_side: int | None) -> Answer:
        picture, facts = decode.upright(image, self.limits, min_side=min_side)
        if max_side is not None:
            decode.reduce(picture, max_side)
        written = 0
        for _, band in decode.bands(picture):
            written += self._write(band.tobytes(), written)
        return {"bytes": written, "shape": (picture.height, picture.width), **_told(facts)}

    def facts(self, image: bytes, *, min_side: int | None) -> Answer:
        return _told(decode.upright(image, self.limits, min_side=min_side)[1])

    def location(self, image: bytes) -> Answer:
        return {"location": decode.read_location(image)}

    def thumbnail(self, image: bytes, *, side: int) -> Answer:
        return {"bytes": self._write(decode.thumbnail(image, self.limits, side))}

    def _write(self, made: bytes, at: int = 0) -> int:
        self.arena[at : at + len(made)] = made
        return len(made)


def _told(facts: Facts) -> Answer:
    taken_at = facts.taken_at.isoformat() if facts.taken_at else None
    return {"facts": [facts.width, facts.height, facts.format, taken_at, facts.location]}


def main() -> None:
    asked = json.loads(sys.argv[1])
    arena = mmap.mmap(asked["arena"], asked["arena_bytes"])
    os.close(asked["arena"])
    decode.prepare_pillow()
    Image.preinit()
    work = Work(arena, DecodeLimits(**asked["limits"]))
    peak_bytes = _peak_memory()
    calls = {call.__name__: call for call in (work.decode, work.facts, work.location, work.thumbnail)}
    _give_up(work.limits.max_memory_bytes)
    _say({"ready": True})
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_time(work.limits.max_seconds)
        answer = _answered(calls, request, arena)
        _limit_time(0)
        _say({**answer, "peak_bytes": peak_bytes()})


def _answered(calls: Mapping[str, Callable[..., Answer]], request: Answer, arena: mmap.mmap) -> Answer:
    try:
        return calls[request["call"]](arena[: request["bytes"]], **request["options"])
    except ImageRejected as rejected:
        return {"rejected": rejected.reason, "detail": str(rejected)}
    except MemoryError:  # where the picture itself was within the bound, and its copy is not
        return {"rejected": Reason.TOO_MANY_PIXELS, "detail": "the picture needs more memory than allowed"}


def _say(answer: Answer) -> None:
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    sys.stdout.buffer.flush()


def _give_up(memory_bytes: int) -> None:
    """From here on: no file, no socket, no process, no more memory than that beside what is mapped already."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to hear
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stderr.fileno())  # what decoders print of hostile bytes is no log of ours
    os.close(nothing)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if (mapped := _mapped_bytes()) is not None:
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    highest = max(number for number in range(256) if _is_open(number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, highest + 1))


def _mapped_bytes() -> int | None:
    """None where the system does not tell; there, memory has no bound but the pictures' own."""
    try:
        with open("/proc/self/statm", encoding="ascii") as told:  # noqa: PTH123 - pathlib is not imported for this
            return int(told.read().split()[0]) * mmap.PAGESIZE
    except OSError:
        return None


def _peak_memory() -> Callable[[], int]:
    """The most that this process ever held. What `getrusage` tells begins, on Linux, with what the parent held when it made this process."""
    try:
        status = os.open("/proc/self/status", os.O_RDONLY)  # stays open, since later no file can be opened
    except OSError:
        return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return lambda: int(os.pread(status, _STATUS_BYTES, 0).partition(b"VmHWM:")[2].split(maxsplit=1)[0]) * 1024


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _limit_time(seconds: float) -> None:
    """So much of the processor, or a multiple of it by the clock; then SIGPROF or SIGALRM, which end a process. 0: no limit."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, seconds * _HANGS)


if __name__ == "__main__":
    main()
