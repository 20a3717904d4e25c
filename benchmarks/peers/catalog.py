"""Whom ingestion is compared with, how each is run, and what it doesn't do of what is done here."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_REQUIREMENTS = Path(__file__).parent / "requirements"
_CORES = os.cpu_count() or 1
_NOTHING_KEPT = "keeps nothing: no hash, no file written, no index"


@dataclass(frozen=True, slots=True)
class Peer:
    """`name` is that of its loop, of its requirements and of the package that it is pinned by."""

    name: str
    run: str
    leaves_out: str
    workers: tuple[int, ...] = (0,)
    """Processes beside its own that read pictures, or embed; each number is tried and the fastest counts."""

    @property
    def requirements(self) -> Path:
        return _REQUIREMENTS / f"{self.name}.txt"

    @property
    def title(self) -> str:
        return f"{self.name} {pinned(self.requirements.read_text())[self.name]}"


def pinned(requirements: str) -> dict[str, str]:
    """Version by package. Raises ValueError for a line that pins nothing."""
    versions = dict[str, str]()
    for line in requirements.splitlines():
        wanted = line.split("#")[0].strip()
        if wanted:
            package, sign, version = wanted.partition("==")
            if not (package and sign and version):
                raise ValueError(f"{wanted!r} is not pinned")
            versions[package] = version
    return versions


RCLIP = Peer(
    "rclip",
    "`ensure_index`, batches of 8, ONNX Runtime, shown 224 pixels rather than its 256",
    "keeps a hash and a vector of each in SQLite; no index, no facts of a picture, nothing watched",
)
PEERS = (
    RCLIP,
    Peer("fastembed", "`ImageEmbedding.embed`, batches of 16, ONNX Runtime", _NOTHING_KEPT, workers=(0, _CORES)),
    Peer(
        "clip-retrieval",
        "`clip-retrieval inference`, batches of 32, torch",
        "writes NumPy and Parquet files; no hash, and its index is another command",
        workers=(0, 1, _CORES),
    ),
    Peer("open-clip-torch", "`encode_image` behind a DataLoader, batches of 32, torch", _NOTHING_KEPT, workers=(0, 1, _CORES)),
    Peer("sentence-transformers", "`encode`, batches of 32, torch", _NOTHING_KEPT),
    Peer("infinity-emb", "`image_embed` of its engine, batches of up to 32, torch, no HTTP", _NOTHING_KEPT),
)
