"""From what was seen to `imagesearch/sizing/measured.json`: the costs of one picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import imagesearch.sizing
from benchmarks import machine
from benchmarks.sizing.computing import Computed, Files
from benchmarks.sizing.ledgers import Rows
from benchmarks.sizing.storage import Stored
from benchmarks.sizing.traffic import Traffic
from imagesearch.sizing.costs import Costs

MEASURED = Path(imagesearch.sizing.__file__).with_name("measured.json")


def seen(path: Path = MEASURED) -> dict[str, Any]:
    """What stands behind the costs, by what was measured together."""
    return dict(json.loads(path.read_text())["seen"]) if path.exists() else {}


def costs(seen: Mapping[str, Any]) -> Costs:
    """Raises KeyError where something was never measured."""
    files, computed = Files(**seen["files"]), Computed(**seen["computing"])
    rows, traffic = Rows(**seen["rows"]), Traffic(**seen["traffic"])
    images, mixed = ([Stored(**one) for one in seen["points"][kind]] for kind in ("images", "mixed"))
    image, mean = images[1].a_point(images[0]), mixed[1].a_point(mixed[0])
    regions = float(seen["points"]["regions"])
    share = regions / (1 + regions)
    further = mixed[1].points - mixed[0].points
    return Costs(
        picture_bytes=files.picture_bytes,
        thumbnail_bytes=files.thumbnail_bytes,
        regions=regions,
        payload_image_bytes=image["payload"],
        payload_region_bytes=(mean["payload"] - (1 - share) * image["payload"]) / share,
        filters_image_bytes=image["filters"],
        filters_region_bytes=(mean["filters"] - (1 - share) * image["filters"]) / share,
        id_bytes=mean["ids"],
        resident_bytes=mixed[1].resident_a_point(mixed[0]),
        index_cpu_s=(mixed[1].index_cpu_s - mixed[0].index_cpu_s) / further,
        ledger_sqlite_bytes=rows.ledger_sqlite,
        ledger_postgres_bytes=rows.ledger_postgres,
        wal_postgres_bytes=rows.wal_postgres,
        rating_sqlite_bytes=rows.rating_sqlite,
        rating_postgres_bytes=rows.rating_postgres,
        clip_cpu_s=computed.clip_cpu_s,
        segmenter_cpu_s=computed.segmenter_cpu_s,
        region_cpu_s=computed.region_cpu_s,
        watcher_cpu_s=traffic.cpu_s["watcher"],
        worker_cpu_s=traffic.cpu_s["workers"],
        database_cpu_s=traffic.cpu_s["postgresql"],
        broker_cpu_s=traffic.cpu_s["redis"],
        broker_commands=traffic.commands,
        broker_bytes=traffic.broker_bytes,
        task_bytes=traffic.task_bytes,
        database_statements=traffic.statements,
        database_transactions=traffic.transactions,
    )


def write(seen: Mapping[str, Any], path: Path = MEASURED) -> None:
    """Costs as well, once all that they follow from was measured."""
    told = {"measured_at": datetime.now(UTC).isoformat(timespec="minutes"), "machine": machine.facts(), "costs": {}, "seen": seen}
    with suppress(KeyError):
        told["costs"] = {name: float(f"{value:.4g}") for name, value in asdict(costs(seen)).items()}
    path.write_text(json.dumps(told, indent=2) + "\n")
