"""Builds the index of a Qdrant Edge shard, as a process of its own: there the engine may hold the GIL for as long as it takes.

    python -m core.vectors.edge_index SOURCE TARGET DIM QUANTIZATION ON_DISK PARENT

TARGET must not exist. The copy is kept as told, whatever the source was. Says `ready` and waits for a line, from which on nobody may
write to SOURCE; `copied` once it needs SOURCE no more, and `built` at the end.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

import qdrant_edge as edge

from core.vectors.edge_config import shard_config
from core.vectors.edge_payload_indexes import renew_indexes
from core.vectors.storage import Quantization, VectorStorage

READY, COPIED, BUILT = "ready", "copied", "built"

_PR_SET_PDEATHSIG = 1


def main() -> None:
    source, target = map(Path, sys.argv[1:3])
    dim, quantization, on_disk = int(sys.argv[3]), cast("Quantization", sys.argv[4]), sys.argv[5] == "True"
    end_with_parent(int(sys.argv[6]))
    os.nice(10)  # whoever searches or ingests comes first
    _say(READY)
    if not sys.stdin.readline():
        return
    shutil.copytree(source, target)
    _say(COPIED)
    engine = edge.EdgeShard.load(str(target), shard_config(dim, VectorStorage(quantization, on_disk)))
    renew_indexes(engine)
    engine.optimize()
    engine.flush()
    engine.close()
    _say(BUILT)


def end_with_parent(parent: int) -> None:
    """On Linux; elsewhere what is left behind ends when it next speaks, and is swept at the next start.

    A `parent` that died while this process was still being started sends no signal any more: then it ends at once.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the process that this works for has ended")


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
