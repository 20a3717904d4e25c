"""A plan in words and figures, for a terminal and for docs/explanation/sizing.md."""

from __future__ import annotations

from typing import NamedTuple

from imagesearch.sizing.chances import Node, fewer_than, losses_a_year, without_majority
from imagesearch.sizing.plan import Plan

_UNITS = ("B", "KB", "MB", "GB", "TB", "PB")


class Line(NamedTuple):
    what: str
    value: str
    why: str
    """What it depends on, in a few words."""


def told(plan: Plan) -> list[Line]:
    return [*_vectors(plan), *_ingestion(plan), *_rest(plan), *_chances(plan)]


def _vectors(plan: Plan) -> list[Line]:
    wanted, vectors = plan.wanted, plan.vectors
    a_point = sum(one.disk for one in vectors.a_point) / len(vectors.a_point)
    where = "vectors on the disk" if wanted.vectors_on_disk else "vectors in memory"
    homes = "they fit into Qdrant Edge, without a server" if vectors.fits_in_process else "more than Qdrant Edge is measured for"
    return [
        Line("points", amount(vectors.points), f"{homes}"),
        Line("vectors, disk", size(vectors.disk), f"{copies(wanted.replicas)}, {a_point:,.0f} bytes a point"),
        Line("vectors, memory", size(vectors.memory), f"{copies(wanted.replicas)}, quantisation {wanted.quantization}, {where}"),
        Line(
            "Qdrant nodes",
            f"{vectors.nodes:,}",
            f"of {wanted.node_memory_gib:g} GiB memory and {wanted.node_disk_gib:g} GiB disk",
        ),
        Line("QDRANT_SHARDS", f"{vectors.shards:,}", f"{amount(vectors.points_in_shard)} points in each"),
    ]


def _ingestion(plan: Plan) -> list[Line]:
    wanted, ingestion = plan.wanted, plan.ingestion
    days = f"{wanted.backfill_days:g} days"
    lines = [
        Line("backfill, cores", figure(ingestion.backfill_cores), f"models, workers, database and watcher, in {days}"),
        Line("backfill, Qdrant's cores", figure(ingestion.backfill_node_cores), f"to build the index of every copy, in {days}"),
        Line("backfill, at best", f"{figure(ingestion.backfill_least_days)} days", "by the one watcher that notices"),
        Line("new pictures, cores", figure(ingestion.arrivals_cores), f"{wanted.arrivals_per_s:g} pictures a second"),
    ]
    if wanted.gpu_pictures_per_s is not None:
        rate = f"each {wanted.gpu_pictures_per_s:g} pictures a second, as you say"
        lines.append(Line("backfill, GPUs", figure(ingestion.backfill_gpus), rate))
        lines.append(Line("new pictures, GPUs", figure(ingestion.arrivals_gpus), rate))
    return lines


def _rest(plan: Plan) -> list[Line]:
    wanted = plan.wanted
    return [
        Line("pictures themselves", size(plan.pictures_bytes), f"{size(plan.pictures_bytes / wanted.pictures)} each"),
        Line("ledger, PostgreSQL", size(plan.ledger_postgres_bytes), f"SQLite {size(plan.ledger_sqlite_bytes)}"),
        Line("PostgreSQL's journal", f"{size(plan.wal_bytes_a_day)} a day", "of new pictures"),
        Line("ratings, PostgreSQL", size(plan.ratings_bytes), f"{amount(wanted.ratings)} ratings"),
        Line("thumbnails", size(plan.thumbnails_bytes), "bounded by THUMBNAILS_MAX_BYTES, in each search service"),
        Line("broker, memory", size(plan.broker_memory_bytes), "however many pictures there are"),
        Line("broker, commands", amount(plan.broker_commands), f"{size(plan.broker_bytes)}, for all pictures once"),
        Line("database, statements", amount(plan.database_statements), f"in {amount(plan.database_transactions)} transactions"),
    ]


def _chances(plan: Plan) -> list[Line]:
    """By `Node`'s careful guesses of how nodes fail."""
    wanted, vectors, node = plan.wanted, plan.vectors, Node()
    held = vectors.disk / vectors.nodes
    down = node.down_share(held)
    away = fewer_than(1, wanted.replicas, down)
    sets = min(vectors.nodes, vectors.shards)
    lost = losses_a_year(wanted.replicas, node.lost_a_year, node.lost_h(held), sets=sets)
    return [
        Line(
            "a shard unsearchable",
            f"{away:.2g} of the time",
            f"a node away {node.away_a_year:g} times a year, {node.away_h * 60:g} min",
        ),
        Line(
            "nodes without a majority",
            f"{without_majority(vectors.nodes, down):.2g} of the time",
            "no collection is changed, no copy declared dead",
        ),
        Line(
            "a shard made anew",
            f"every {amount(round(1 / lost))} years" if lost < 1 else f"{lost:.1f} times a year",
            f"{node.lost_a_year:g} disks lost a node and year",
        ),
    ]


def copies(replicas: int) -> str:
    return "one copy" if replicas == 1 else f"{replicas} copies"


def size(count: float) -> str:
    """Three figures, in powers of a thousand, as disks are sold."""
    return _scaled(count, _UNITS, " ")


def amount(count: float) -> str:
    """As 4.5 million."""
    return _scaled(count, ("", "thousand", "million", "billion", "trillion"), " ").strip()


def figure(count: float) -> str:
    return f"{count:,.0f}" if count >= 100 else f"{count:.2g}" if count < 10 else f"{count:.0f}"


def _scaled(count: float, units: tuple[str, ...], gap: str) -> str:
    """Rounds before it chooses: 999.9 thousand is a million."""
    step = 0
    while step < len(units) - 1 and float(f"{count:.3g}") >= 1000:
        count, step = count / 1000, step + 1
    shown = f"{count:,.0f}" if count >= 100 or float(count).is_integer() else f"{count:.3g}"
    return f"{shown}{gap}{units[step]}"
