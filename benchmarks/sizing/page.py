"""docs/explanation/sizing.md, from what was measured (`imagesearch/sizing/measured.json`) and played (`sizing.json` beside the page)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

from benchmarks.sizing.costing import MEASURED
from benchmarks.sizing.trouble import PLACES, SERVED_S
from benchmarks.sizing.waiting import caught_up_s
from imagesearch.sizing.chances import Node, losses_a_year
from imagesearch.sizing.costs import Costs, measured
from imagesearch.sizing.plan import Plan, Wanted, planned
from imagesearch.sizing.telling import amount, figure, size, told

_SIZES = {
    "1 million": Wanted(1_000_000, node_memory_gib=16, node_disk_gib=500, backfill_days=3, arrivals_per_s=0.1),
    "10 million": Wanted(10_000_000, node_memory_gib=64, node_disk_gib=1000, backfill_days=10, arrivals_per_s=1),
    "100 million": Wanted(100_000_000, node_memory_gib=256, node_disk_gib=4000, backfill_days=30, arrivals_per_s=5),
    "1 billion": Wanted(1_000_000_000, node_memory_gib=512, node_disk_gib=8000, backfill_days=90, arrivals_per_s=20),
}
_WAYS: Mapping[str, dict[str, Any]] = {
    "without regions": {"segments": 0.0},
    "4 regions": {},
    "4 regions, vectors in memory": {"vectors_on_disk": False},
    "4 regions, no quantisation": {"quantization": "off"},
    "4 regions, binary": {"quantization": "binary"},
    "4 regions, and a second space of 2,048 numbers": {"dims": (512, 2048)},
    "4 regions, one copy": {"replicas": 1},
}


def write(docs: Path) -> None:
    (docs / "sizing.md").write_text(made(docs))


def made(docs: Path) -> str:
    """The page. `docs` is the folder of `sizing.json`."""
    costs, seen, trouble = measured(), json.loads(MEASURED.read_text()), json.loads((docs / "sizing.json").read_text())
    tables = {
        "costs": _costs(costs, seen["seen"]),
        "sizes": _sizes(costs),
        "ways": _ways(costs),
        "clusters": _clusters(trouble),
        "outages": _outages(trouble),
    }
    words = Template(Path(__file__).with_name("page.md").read_text())
    return words.substitute(
        _said_of(trouble), **_anew(costs), about=_about(seen), **{name: "\n".join(rows) for name, rows in tables.items()}
    )


def _about(seen: dict[str, Any]) -> str:
    facts, photos = seen["machine"], seen["seen"]["files"]
    kind = (
        "real photos, enlarged to 0.5 to 1.7 megapixels" if photos["real_photos"] else "drawn pictures of 0.5 to 1.7 megapixels"
    )
    return f"On {facts['cores']} cores of {facts['processor']}, which had other work beside it; {kind}."


def _costs(costs: Costs, seen: dict[str, Any]) -> Iterable[str]:
    (few, many), (few_mixed, many_mixed) = seen["points"]["images"], seen["points"]["mixed"]
    short = (many_mixed["disk"]["short vectors"] - few_mixed["disk"]["short vectors"]) / (
        many_mixed["points"] - few_mixed["points"]
    )
    links = many_mixed["disk"]["links"] / many_mixed["points"]
    vector = (many["disk"]["vectors"] - few["disk"]["vectors"]) / (many["points"] - few["points"])
    rows = [
        ("vector of 512 numbers", f"{vector:,.0f} bytes", "of each point"),
        ("its short form, scalar", f"{short:,.0f} bytes", "binary: 64, computed"),
        ("payload of a picture", f"{costs.payload_image_bytes:,.0f} bytes", "in blocks of 128"),
        (
            "payload of a region",
            f"{costs.payload_region_bytes:,.0f} bytes",
            f"with its mask; people drew {costs.regions:.1f} in a photo of COCO",
        ),
        (
            "payload indexes",
            f"{costs.filters_image_bytes:,.0f} bytes",
            f"of a picture; {costs.filters_region_bytes:,.0f} of a region",
        ),
        ("links of the graph", f"{links:.0f} bytes", f"at {many_mixed['points']:,} points; they grow with the logarithm"),
        ("id and version", f"{costs.id_bytes:.0f} bytes", ""),
        ("memory that is no file's", f"{costs.resident_bytes:,.0f} bytes", "of a point, with an open shard"),
        (
            "ledger",
            f"{costs.ledger_postgres_bytes:,.0f} bytes",
            f"a picture, in PostgreSQL with its indexes; {costs.ledger_sqlite_bytes:,.0f} in SQLite",
        ),
        (
            "PostgreSQL's journal",
            f"{costs.wal_postgres_bytes:,.0f} bytes",
            "a picture; more after each checkpoint, which writes whole pages",
        ),
        (
            "rating",
            f"{costs.rating_postgres_bytes:,.0f} bytes",
            f"2,048 of it the query's vector; {costs.rating_sqlite_bytes:,.0f} in SQLite",
        ),
        ("thumbnail", size(costs.thumbnail_bytes), "256 pixels, WEBP"),
        ("picture", size(costs.picture_bytes), "JPEG; yours will differ"),
        (
            "ingestion with CLIP ViT-B/32",
            _ms(costs.clip_cpu_s),
            "all of it in `make run`, but regions ([performance](../performance.md))",
        ),
        (
            "regions, YOLOv8n-seg",
            _ms(costs.segmenter_cpu_s),
            f"to find and cut them out, and {_ms(costs.region_cpu_s)} to embed each",
        ),
        ("watcher with a broker", _ms(costs.watcher_cpu_s), "noticing and sending"),
        ("worker", _ms(costs.worker_cpu_s), "small pictures; without the models"),
        (
            "PostgreSQL",
            _ms(costs.database_cpu_s),
            f"{costs.database_statements:.1f} statements, {costs.database_transactions:.1f} transactions",
        ),
        (
            "Redis",
            _ms(costs.broker_cpu_s),
            f"one task: {costs.broker_commands:.1f} commands, {size(costs.broker_bytes)} in and out",
        ),
        ("a task that waits", f"{costs.task_bytes:,.0f} bytes", "of Redis' memory; no more than 1,000 wait"),
        ("index of a point", _ms(costs.index_cpu_s), "once, of 512 numbers"),
    ]
    return _table(("of one", "measured", ""), rows)


def _sizes(costs: Costs) -> Iterable[str]:
    plans = {name: told(planned(wanted, costs)) for name, wanted in _SIZES.items()}
    names = [line.what for line in next(iter(plans.values()))]
    wishes = [
        ("*a Qdrant node*", *(f"{one.node_memory_gib:g} GiB, disk {one.node_disk_gib:,.0f} GiB" for one in _SIZES.values())),
        ("*to be in after*", *(f"{one.backfill_days:g} days" for one in _SIZES.values())),
        ("*new ones a second*", *(f"{one.arrivals_per_s:g}" for one in _SIZES.values())),
    ]
    rows = [(name, *(plan[n].value for plan in plans.values())) for n, name in enumerate(names) if not name.startswith("ratings")]
    return _table(("pictures", *plans), wishes + rows)


def _ways(costs: Costs) -> Iterable[str]:
    base = _SIZES["100 million"]
    plans = {name: planned(_changed(base, change), costs) for name, change in _WAYS.items()}
    return _table(
        ("100 million pictures", "points", "disk", "memory", "nodes", "cores for the backfill"),
        [_way(*one) for one in plans.items()],
    )


def _changed(base: Wanted, change: dict[str, Any]) -> Wanted:
    return replace(base, **change)


def _way(name: str, plan: Plan) -> Sequence[str]:
    vectors = plan.vectors
    return (
        name,
        amount(vectors.points),
        size(vectors.disk),
        size(vectors.memory),
        f"{vectors.nodes}",
        figure(plan.ingestion.backfill_cores),
    )


def _said_of(trouble: dict[str, Any]) -> dict[str, str]:
    node, held = Node(**trouble["node"]), trouble["held_bytes"]
    return {
        "away_a_year": f"{node.away_a_year:g}",
        "away_min": f"{node.away_h * 60:g}",
        "disk_years": f"{1 / node.lost_a_year:g}",
        "replaced_h": f"{node.replaced_h:g}",
        "held": size(held),
        "rate": f"{node.copied_mb_per_s:g} MB a second",
        "lost_h": f"{node.lost_h(held):.1f}",
        "years": f"{trouble['years']:,}",
        "disk_played": amount(trouble["disk_years"]),
    }


def _clusters(trouble: dict[str, Any]) -> Iterable[str]:
    head = (
        "nodes",
        "copies",
        "must have a write",
        "some shard not searched",
        "some writes wait",
        "one shard's do",
        "no majority",
        "all copies lost, played",
        "computed",
    )
    return _table(head, [_cluster(one, trouble["disk_years"]) for one in trouble["clusters"]])


def _cluster(one: dict[str, Any], years: float) -> Sequence[str]:
    times = "" if one["losses"] is None else f"{amount(one['losses'])} times in {amount(years)} years"
    hours = (one[name] for name in ("unsearchable_h", "refused_h", "one_shard_refused_h", "no_majority_h"))
    every = (
        f"once in {amount(1 / one['losses_a_year'])} years" if one["losses_a_year"] < 1 else f"{one['losses_a_year']:.1f} a year"
    )
    return (f"{one['nodes']}", f"{one['replicas']}", f"{one['write_consistency']}", *map(_a_year, hours), times, every)


def _anew(costs: Costs) -> dict[str, str]:
    """Of the table's hundred million."""
    plan = planned(_SIZES["100 million"], costs)
    pictures = plan.wanted.pictures / plan.vectors.shards
    cpu_s = plan.ingestion.model_cpu_s + plan.ingestion.worker_cpu_s + plan.ingestion.database_cpu_s
    lost = losses_a_year(2, Node().lost_a_year, Node().lost_h(plan.vectors.disk / plan.vectors.nodes), sets=plan.vectors.nodes)
    return {
        "pictures": amount(round(pictures, -4)),
        "shards": str(plan.vectors.shards),
        "nodes": str(plan.vectors.nodes),
        "core_hours": f"{pictures * cpu_s / 3600:,.0f}",
        "hours": f"{pictures * cpu_s / 3600 / 64:,.0f}",
        "every": f"{1 / lost:,.0f}",
    }


def _outages(trouble: dict[str, Any]) -> Iterable[str]:
    rows = []
    for one in trouble["outages"]:
        most_per_s = PLACES / SERVED_S
        whole = one["what"].startswith(("the broker", "the database"))
        computed = _seconds(caught_up_s(600, one["share"] * most_per_s, most_per_s)) if whole else ""
        rows.append(
            (
                one["what"],
                f"{one['share']:.0%}",
                _seconds(one["longest"]),
                _seconds(one["caught_up"]),
                computed,
                f"{one['redone']}",
            )
        )
    return _table(("what", "busy before", "longest wait", "caught up after", "computed", "done twice"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    return [f"| {' | '.join(one)} |" for one in (head, ["---"] * len(head), *rows)]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms CPU"


def _a_year(hours: float) -> str:
    return (
        f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.2g} min" if hours > 0 else "never"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
