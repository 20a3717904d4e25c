"""What a point takes in Qdrant, on the disk and in memory, in one copy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from imagesearch.sizing.costs import Costs

Quantization = Literal["off", "scalar", "binary"]

LINKS = 32
"""Of a point in the lowest layer of the graph: twice the `m` of 16 that Qdrant takes unless told otherwise."""

BUILDING = 1.25
"""Room for parts of a shard that are being built anew beside those that answer."""

QDRANT_RULE = 1.5
"""numbers x 4 bytes x 1.5: https://qdrant.tech/documentation/capacity-planning/. Its half covers what `points_memory` counts by parts."""


@dataclass(frozen=True, slots=True)
class Kept:
    """Bytes of one point."""

    vector: float
    short: float
    """Of the short form that is searched first."""
    payload: float
    filters: float
    links: float
    ids: float
    resident: float

    @property
    def disk(self) -> float:
        return self.vector + self.short + self.payload + self.filters + self.links + self.ids

    def memory(self, *, vectors_on_disk: bool) -> float:
        """What searches read each time, so that it has to be in memory: payloads are read of what is found alone."""
        searched = self.searched(vectors_on_disk=vectors_on_disk)
        return max((searched + self.links + self.ids) * BUILDING, searched * QDRANT_RULE) + self.resident

    def searched(self, *, vectors_on_disk: bool) -> float:
        """Of the vectors. Left on the disk, they are read for the best alone, where there is a short form; without one, all the time."""
        if not self.short:
            return self.vector
        return self.short if vectors_on_disk else self.short + self.vector


def kept(costs: Costs, dim: int, quantization: Quantization, *, points_in_shard: float, regions_share: float) -> Kept:
    """The mean of all points, of which `regions_share` (0 to 1) are those of segments."""

    def mean(of_image: float, of_region: float) -> float:
        return (1 - regions_share) * of_image + regions_share * of_region

    return Kept(
        vector=4.0 * dim,
        short=short_bytes(dim, quantization),
        payload=mean(costs.payload_image_bytes, costs.payload_region_bytes),
        filters=mean(costs.filters_image_bytes, costs.filters_region_bytes),
        links=links_bytes(points_in_shard),
        ids=costs.id_bytes,
        resident=costs.resident_bytes,
    )


def short_bytes(dim: int, quantization: Quantization) -> float:
    """A byte a number and an offset of four, or a bit a number."""
    return {"off": 0.0, "scalar": dim + 4.0, "binary": dim / 8}[quantization]


def links_bytes(points_in_shard: float) -> float:
    """At most: a link names one of the shard's points in as many bits as that takes. Upper layers have a sixteenth as many points."""
    return LINKS * math.log2(max(2.0, points_in_shard)) / 8 * (1 + 1 / 16)
