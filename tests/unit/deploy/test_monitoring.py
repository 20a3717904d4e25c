"""A panel over a metric that nobody writes stays empty for ever, so names are compared with the source."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy.test_compose import SERVICES
from tests.unit.deploy.test_dockerfile import PORTS, TARGETS

REPOSITORY = Path(__file__).resolve().parents[3]
PACKAGES = ("core", "watcher", "searchsvc", "model_service")
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "deploy/grafana/dashboards/imagesearch.json").read_text())

_METRIC_MAKERS = {"Counter", "Gauge", "Histogram", "Summary", "CounterMetricFamily", "GaugeMetricFamily", "HistogramMetricFamily"}
_OF_PROCESS_COLLECTOR = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"}
_OF_PROMETHEUS = {"up"}
_PROMQL_WORDS = {
    "sum",
    "rate",
    "histogram_quantile",
    "by",
    "le",
    "max",
    "min",
    "clamp_min",
    "increase",
    "or",
    "vector",
    "avg",
    "on",
}


def _written_metrics() -> set[str]:
    names = set()
    for package in PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _maker(node.func) in _METRIC_MAKERS and node.args:
                    first = node.args[0]
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        names |= _exposed(_maker(node.func), first.value)
    return names


def _maker(function: ast.expr) -> str:
    return function.id if isinstance(function, ast.Name) else function.attr if isinstance(function, ast.Attribute) else ""


def _exposed(maker: str, name: str) -> set[str]:
    if maker.startswith("Counter"):
        return {f"{name.removesuffix('_total')}_total"}
    if maker.startswith(("Histogram", "Summary")):
        return {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return {name}


def _metrics_of(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"|\{[^}]*\}|\[[^\]]*\]|\bby\s*\([^)]*\)', " ", expression)
    return {word for word in re.findall(r"[a-zA-Z_:][a-zA-Z0-9_:]*", bare) if word not in _PROMQL_WORDS}


def _targets() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize(("title", "expression"), _targets())
def test_a_panel_asks_for_metrics_that_the_services_write(title: str, expression: str) -> None:
    asked = _metrics_of(expression)
    assert asked
    assert asked <= _written_metrics() | _OF_PROCESS_COLLECTOR | _OF_PROMETHEUS, title


def test_panels_have_ids_of_their_own_and_the_provisioned_datasource() -> None:
    source = yaml.safe_load((REPOSITORY / "deploy/grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    assert all(panel["datasource"]["uid"] == source["uid"] for panel in DASHBOARD["panels"] if panel["type"] != "row")
    assert source["url"] == "http://prometheus:9090"


def test_panels_do_not_cover_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells


def test_grafana_reads_the_dashboards_from_where_they_are_mounted() -> None:
    provider = yaml.safe_load((REPOSITORY / "deploy/grafana/provisioning/dashboards/imagesearch.yml").read_text())["providers"][0]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/imagesearch.json"


def test_prometheus_asks_every_service_at_its_port() -> None:
    configuration = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text())
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in configuration["scrape_configs"]}
    assert scraped == {**{name: [f"{name}:{PORTS[name]}"] for name in TARGETS}, "qdrant": ["qdrant:6333"]}
