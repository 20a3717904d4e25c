"""Backbones compiled by torch, where that pays on this machine.

Nothing is taken for granted: the compiled one is timed against the plain one on what will be asked of it, and its answers are compared.
A machine without a compiler (of C++ for a CPU, Triton for a GPU), or a backbone that torch cannot follow, keeps the plain one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import structlog
import torch

from model_service.parts import Tensor
from model_service.towers import normalised

log = structlog.get_logger()

LEAST_GAIN = 1.05
"""How many times as fast the largest batch must be; and one input alone must not be slower by as much."""
_SAME = 0.999
_ROUNDS = 5

Pass = Callable[[torch.nn.Module, int], Tensor]
"""The features of n inputs."""


@dataclass(frozen=True, slots=True)
class Compiling:
    """`folder` is where compilers keep what they made, for the next start; `largest` is the largest batch."""

    folder: Path
    largest: int

    def where_it_pays(self, backbone: torch.nn.Module, passed: Pass, *, name: str) -> torch.nn.Module:
        """`backbone` compiled, or itself. The first time this takes a minute or so, later seconds."""
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(self.folder / "inductor"))  # the only way to tell the two
        os.environ.setdefault("TRITON_CACHE_DIR", str(self.folder / "triton"))
        started = time.monotonic()
        sizes = sorted({1, self.largest})
        compiled = cast("torch.nn.Module", torch.compile(backbone, dynamic=True))
        try:
            cosine = min(_agreement(passed(backbone, n), passed(compiled, n)) for n in sizes)
            gains = [_seconds(backbone, passed, n) / _seconds(compiled, passed, n) for n in sizes]
        except Exception as error:  # noqa: BLE001 - compilers raise anything, and nobody needs them
            log.warning("model_not_compiled", model=name, error=_first_line(error))
            return backbone
        pays = cosine >= _SAME and gains[-1] >= LEAST_GAIN and gains[0] >= 1 / LEAST_GAIN
        log.info(
            "model_compiled" if pays else "model_not_compiled",
            model=name,
            took_s=round(time.monotonic() - started, 1),
            times_as_fast=dict(zip(sizes, (round(gain, 2) for gain in gains), strict=True)),
            least_cosine=round(cosine, 4),
        )
        return compiled if pays else backbone


def is_compiled(backbone: torch.nn.Module) -> bool:
    return hasattr(backbone, "_orig_mod")


def _agreement(one: Tensor, other: Tensor) -> float:
    """The least cosine, -1 where it is not a number."""
    return float(np.nan_to_num((normalised(one) * normalised(other)).sum(axis=1), nan=-1.0).min())


def _seconds(backbone: torch.nn.Module, passed: Pass, count: int) -> float:
    """The best of a few rounds: what else the machine does makes some of them longer, and none shorter."""
    return min(_timed(lambda: passed(backbone, count)) for _ in range(_ROUNDS))


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
