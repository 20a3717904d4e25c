"""What a product holds: memory, handles, threads, over all of its processes but those that decode, which come and go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import psutil

_DECODER = "core.decoding_process"


@dataclass(frozen=True, slots=True)
class Held:
    """`pss_mib` counts what processes share once."""

    pss_mib: float
    handles: int
    threads: int


def held(pid: int) -> Held:
    """By the process and its children."""
    root = psutil.Process(pid)
    processes = [one for one in (root, *root.children(recursive=True)) if _DECODER not in one.cmdline()]
    return Held(
        sum(one.memory_full_info().pss for one in processes) / 2**20,
        sum(one.num_fds() for one in processes),
        sum(one.num_threads() for one in processes),
    )


async def watched(pid: int, *, every_s: float, into: list[Held]) -> None:
    """Look again and again, until cancelled."""
    while True:
        into.append(await asyncio.to_thread(held, pid))
        await asyncio.sleep(every_s)
