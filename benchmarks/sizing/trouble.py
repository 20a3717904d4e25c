"""What is played for the page: clusters that lose nodes, and ingestion that loses a part for a while."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.sizing.losses import Cluster, lost, played
from benchmarks.sizing.waiting import Outage, Service, waited
from imagesearch.sizing.chances import Node, losses_a_year

HELD_BYTES = 500e9
"""By each node; it takes 1.4 hours to copy at the rate that `Node` guesses."""
_YEARS, _DISK_YEARS = 1_000, 1_000_000
_NODES = (3, 6, 12, 24)
_COPIES = ((1, 1), (2, 1), (2, 2), (3, 2))
"""QDRANT_REPLICAS and QDRANT_WRITE_CONSISTENCY."""

PLACES = 32
"""Eight workers that have four pictures at once."""
SERVED_S = 1.6
LEASE_S = 60.0
_SHARES = (0.5, 0.8)
"""Of what they can do at most, which 20 pictures a second are."""
_AT_S, _FOR_S = 600.0, 600.0
_OUTAGES: Sequence[tuple[str, Outage]] = (
    ("one worker of eight killed, back after a minute", Outage(_AT_S, 60.0, PLACES // 8, LEASE_S)),
    ("one machine with four of eight workers gone for 10 minutes", Outage(_AT_S, _FOR_S, PLACES // 2, LEASE_S)),
    ("one model service of four gone for 10 minutes", Outage(_AT_S, _FOR_S, PLACES // 4, 0.0)),
    ("the broker gone for 10 minutes", Outage(_AT_S, _FOR_S, PLACES)),
    ("the database gone for 10 minutes", Outage(_AT_S, _FOR_S, PLACES, 0.0)),
)


def played_out(*, years: int = _YEARS, disk_years: int = _DISK_YEARS, pictures: int = 75_000, seed: int = 7) -> dict[str, Any]:
    """As JSON, with all that it was played with."""
    return {
        "seed": seed,
        "years": years,
        "disk_years": disk_years,
        "held_bytes": HELD_BYTES,
        "node": asdict(Node()),
        "clusters": [
            _cluster(Cluster(nodes, 2 * nodes, *kept, HELD_BYTES), years, disk_years, seed)
            for nodes in _NODES
            for kept in _COPIES
        ],
        "outages": [_outage(what, outage, share, pictures, seed) for what, outage in _OUTAGES for share in _SHARES],
    }


def _cluster(cluster: Cluster, years: int, disk_years: int, seed: int) -> dict[str, Any]:
    """Three copies are lost too rarely to be played: the closed form alone tells."""
    losses, lost_shards = lost(cluster, years=disk_years, seed=seed) if cluster.replicas < 3 else (None, None)
    lost_h = cluster.node.lost_h(HELD_BYTES)
    return {
        "nodes": cluster.nodes,
        "shards": cluster.shards,
        "replicas": cluster.replicas,
        "write_consistency": cluster.write_consistency,
        **played(cluster, years=years, seed=seed)._asdict(),
        "losses": losses,
        "lost_shards": lost_shards,
        "losses_a_year": losses_a_year(cluster.replicas, cluster.node.lost_a_year, lost_h, sets=len(cluster.holders())),
    }


def _outage(what: str, outage: Outage, share: float, pictures: int, seed: int) -> dict[str, Any]:
    service = Service(share * PLACES / SERVED_S, SERVED_S, PLACES)
    found = waited(service, pictures=pictures, seed=seed, outage=outage)
    return {"what": what, "share": share, **asdict(found)}
