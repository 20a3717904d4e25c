"""A peer's loop as a process of its own, and what it saw."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.peers.catalog import Peer
from benchmarks.peers.environment import PeerFailed, reason

_REPOSITORY = Path(__file__).resolve().parents[2]
_TIMEOUT_S = 900
_ALONE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    "NO_ALBUMENTATIONS_UPDATE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_OFFLINE": "1",
    "WANDB_MODE": "disabled",
}
"""Each is told not to call its maker, nor to fetch anything."""


def seen_by(peer: Peer, python: Path, what: str, subject: Path | int, *more: int, models: Path) -> dict[str, float]:
    """What `benchmarks.peers.loop` prints under that interpreter. Raises PeerFailed."""
    with tempfile.TemporaryDirectory(prefix="imagesearch-peer-") as scratch:
        arguments = [peer.name.replace("-", "_"), what, str(subject), str(models.resolve()), scratch, *map(str, more)]
        try:
            ended = subprocess.run(  # noqa: S603 - a module of this repository
                [str(python), "-m", "benchmarks.peers.loop", *arguments],
                cwd=_REPOSITORY,
                env={**os.environ, **_ALONE},
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise PeerFailed(f"did not end within {_TIMEOUT_S} s") from None
    if ended.returncode:
        raise PeerFailed(f"failed: {reason(ended.stderr)}")
    return _parsed(ended.stdout)


def _parsed(stdout: str) -> dict[str, float]:
    """Of the last line. Raises PeerFailed when it is no JSON object of numbers."""
    try:
        found = json.loads(stdout.strip().splitlines()[-1])
        return {str(name): float(value) for name, value in found.items()}
    except (IndexError, ValueError, AttributeError, TypeError):
        raise PeerFailed(f"failed: it printed {stdout[-80:]!r}") from None
