"""The cores that this process may use, and how they are shared: one place, so that no two libraries each take all of them."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_MOST_DECODERS = 8
_CORES_OF_A_PASS = 4
"""On machines with more than eight cores: a lone picture is not to wait for a single core."""


@dataclass(frozen=True, slots=True)
class ThreadBudget:
    """Threads of one process that serves models.

    `passes` through a model run at once, each on its share of the `inference` threads: the threads of one pass wait for each other, so
    that a pass over all cores stands still whenever a decoder has one of them. Decoders keep the next batch ready: half the cores for them.
    """

    inference: int
    passes: int
    decoding: int

    @classmethod
    def of(cls, cores: int) -> ThreadBudget:
        passes = min(cores, max(2, cores // _CORES_OF_A_PASS))
        return cls(inference=cores, passes=passes, decoding=max(1, min(_MOST_DECODERS, math.ceil(cores / 2))))


def usable_cores(quota_file: Path = _CPU_QUOTA) -> int:
    """Cores that the scheduler gives us: those of our affinity, or fewer where a container's quota is smaller. `os.cpu_count` knows neither."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
        return max(1, min(allowed, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such group, or `max`: no quota
        return max(1, allowed)


def limit_libraries(threads: int) -> None:
    """Bound the thread pools that libraries make when they are loaded; to be called before any of them is imported.

    What the user has set stays. OpenMP's threads otherwise spin while they wait for each other: ten times the time on a machine
    that is busy elsewhere.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))
