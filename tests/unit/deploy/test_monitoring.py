"""A panel or an alert over a metric that nobody exposes stays silent for ever, so both are held against what the services expose."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.deploy import promql
from tests.unit.deploy.scrape import Metric, scrape
from tests.unit.deploy.test_compose import SERVICES, TARGETS
from tests.unit.deploy.test_dockerfile import PORTS

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = (REPOSITORY / "docs/how-to/watch-it-run.md").read_text()
DASHBOARD: dict[str, Any] = json.loads((REPOSITORY / "deploy/grafana/dashboards/imagesearch.json").read_text())
PROMETHEUS: dict[str, Any] = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.yml").read_text())
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]

_OF_PROMETHEUS = {"up": {"job", "instance"}, "ALERTS": {"alertstate", "alertname"}}
_OF_EVERY_TARGET = {"job", "instance", "le"}
_NO_BASE_UNIT = re.compile(r"_(ms|milliseconds|minutes|hours|kb|mb|percent|count|sum|bucket)(_|$)")
_ENDINGS = {"counter": "_total", "histogram": "", "gauge": ""}


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    return scrape(tmp_path_factory.mktemp("scraped"))


def _targets() -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


@pytest.mark.parametrize(
    ("title", "expression"),
    [*_targets(), *((rule["alert"], rule["expr"]) for rule in ALERTS)],
    ids=lambda value: value if "(" not in value and "_" not in value else "",
)
def test_a_panel_or_an_alert_asks_for_what_the_services_expose(title: str, expression: str, exposed: list[Metric]) -> None:
    samples = [sample for metric in exposed for sample in metric.samples]
    asked = promql.selectors(expression)
    assert asked, title
    known = set(_OF_EVERY_TARGET)
    for selector in asked:
        named = [sample.labels for sample in samples if sample.name == selector.metric]
        labels = _OF_PROMETHEUS.get(selector.metric) or {label for sample in named for label in sample}
        assert named or selector.metric in _OF_PROMETHEUS, f"{title}: nobody exposes {selector.metric}"
        known |= labels
        for matcher in selector.matchers:
            assert matcher.label in labels, f"{title}: {selector.metric} has no label {matcher.label}"
            if matcher.label != "status" and selector.metric not in _OF_PROMETHEUS:
                assert any(matcher.admits(sample[matcher.label]) for sample in named), f"{title}: {matcher} admits nothing"
    assert promql.labels(expression) <= known, title


def test_expressions_that_ask_for_nothing_real_are_found_out() -> None:
    asked = promql.selectors(
        'sum by (a) (rate(x_total{b="c",d!~"e|f"}[5m])) / on (a) y > 0.5 and histogram_quantile(0.9, z_bucket) or 1e3'
    )
    assert [(one.metric, [(m.label, m.operator, m.value) for m in one.matchers]) for one in asked] == [
        ("x_total", [("b", "=", "c"), ("d", "!~", "e|f")]),
        ("y", []),
        ("z_bucket", []),
    ]
    assert promql.labels("sum by (a, b) (x) / on (c) y") == {"a", "b", "c"}
    for broken in ("sum(x", "sum(x))", "x{a=b}", "rate(x[5m)"):
        with pytest.raises(ValueError, match=r"."):
            promql.selectors(broken)


def test_metrics_are_named_by_the_conventions(exposed: list[Metric]) -> None:
    for metric in exposed:
        assert re.fullmatch(r"[a-z][a-z0-9_]*", metric.name)
        assert metric.help, metric.name
        assert metric.kind in _ENDINGS, metric.name
        assert metric.name.endswith("_total") is (metric.kind == "counter"), metric.name
        assert not _NO_BASE_UNIT.search(metric.name), metric.name


def test_histograms_have_buckets_enough_to_tell_a_quantile(exposed: list[Metric]) -> None:
    for metric in (metric for metric in exposed if metric.kind == "histogram"):
        bounds = {float(sample.labels["le"]) for sample in metric.samples if "le" in sample.labels}
        assert len(bounds) >= 7, metric.name


def _rows(heading: str) -> list[list[str]]:
    """The table below a heading of the page, without its head."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in lines[2:]]


def test_the_page_tells_every_metric_as_it_is_and_makes_none_up(exposed: list[Metric]) -> None:
    written = {row[0]: row[1:4] for row in _rows("Every metric")}
    names = {"searchsvc": "s", "watcher": "w", "model_service": "m"}
    assert written == {
        f"`{metric.name}`": [
            metric.kind,
            ", ".join(f"`{label}`" for label in sorted(metric.labels)),
            " ".join(short for service, short in names.items() if service in metric.services),
        ]
        for metric in exposed
    }


def test_the_page_tells_what_to_do_about_each_alert() -> None:
    assert [row[0] for row in _rows("When an alert fires")] == [f"`{rule['alert']}`" for rule in ALERTS]


def test_alerts_have_a_summary_and_a_severity_and_names_of_their_own() -> None:
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert re.fullmatch(r"\d+[smh]", rule.get("for", "0s"))
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}


def test_prometheus_finds_its_rules_where_they_are_mounted() -> None:
    mounted = {mount.split(":")[1]: mount.split(":")[0] for mount in SERVICES["prometheus"]["volumes"]}
    for name in PROMETHEUS["rule_files"]:
        assert (REPOSITORY / mounted[f"/etc/prometheus/{name}"]).is_file()


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
    scraped = {job["job_name"]: job["static_configs"][0]["targets"] for job in PROMETHEUS["scrape_configs"]}
    assert scraped == {**{name: [f"{name}:{PORTS[name]}"] for name in TARGETS}, "qdrant": ["qdrant:6333"]}
