"""What a product holds: memory, handles, threads, over all of its processes but those that decode, which come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import psutil

_DECODER = "core.decoding_process"


@dataclass(frozen=True, slots=True)
class Held:
    """Memory counts what processes share once. `own_mib` is without files that are mapped, which the system may drop at any time."""

    pss_mib: float
    own_mib: float
    handles: int
    threads: int


def held(pid: int) -> Held:
    """By the process and its children."""
    root = psutil.Process(pid)
    processes = [one for one in (root, *root.children(recursive=True)) if _DECODER not in one.cmdline()]
    kib = Counter[str]()
    for one in processes:
        kib.update(_rollup(one.pid))
    return Held(
        kib["Pss"] / 1024,
        (kib["Pss"] - kib["Pss_File"]) / 1024,
        sum(one.num_fds() for one in processes),
        sum(one.num_threads() for one in processes),
    )


def _rollup(pid: int) -> dict[str, int]:
    """KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}


async def watched(pid: int, *, every_s: float, into: list[Held]) -> None:
    """Look again and again, until cancelled."""
    while True:
        into.append(await asyncio.to_thread(held, pid))
        await asyncio.sleep(every_s)
