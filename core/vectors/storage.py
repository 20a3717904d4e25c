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


@dataclass(frozen=True, slots=True)
class ClusterLayout:
    """How a server spreads collections that are made from now on. None leaves it to the server."""

    shards: int | None = None
    replicas: int | None = None
    write_consistency: int | None = None
    """Replicas that must have a write before it counts."""
    payload_on_disk: bool = True


AS_THE_SERVER_HAS_IT = ClusterLayout()
