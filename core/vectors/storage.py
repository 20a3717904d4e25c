"""How vectors are kept: whole or also in a short form that is searched first, in memory or on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Quantization = Literal["off", "scalar", "binary"]
ReadConsistency = Literal["majority", "quorum", "all"] | int


@dataclass(frozen=True, slots=True)
class VectorStorage:
    """Of collections that are made from now on; Qdrant Edge also brings an older one to it with its next index.

    `scalar` keeps a byte a number, `binary` a bit, beside the vectors themselves: an index is searched by them, and the best are
    compared again by the whole vectors. `on_disk` leaves those to the system's cache.
    """

    quantization: Quantization = "off"
    on_disk: bool = False

    @property
    def oversampling(self) -> float:
        """How many more than asked for are compared again: a bit tells less than a byte."""
        return 4.0 if self.quantization == "binary" else 2.0


PLAIN = VectorStorage()

SEARCH_EF = 512
"""How many neighbours a search of the graph keeps in view. Half as many found 91 to 95 % of the ten nearest of 100,000 points where a
filter left a fifth of them, these 98 %. Words lie between the pictures, where a graph needs more of them than near one
(benchmarks/recall.py asks both ways)."""

COMPARED_KB = 50_000
"""Where a filter leaves no more than so many KB of vectors, each of them is compared: 20,000 vectors of 512 numbers take 5 ms, where the
graph takes 4 and finds less. It has no links of their own for values that fewer points have."""


@dataclass(frozen=True, slots=True)
class ClusterLayout:
    """How a server spreads collections that are made from now on. None leaves it to the server."""

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None
    """Replicas that must have a write before it counts."""
    payload_on_disk: bool = True


AS_THE_SERVER_HAS_IT = ClusterLayout()
