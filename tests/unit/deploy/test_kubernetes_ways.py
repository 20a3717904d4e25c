"""The Kubernetes manifests as far as they are about who asks whom, and who comes and goes."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web

from core.gate import Gate
from core.hosts import KnownHosts
from core.metrics import service_registry
from model_service.app import create_app as create_model_app
from model_service.settings import ModelSettings
from searchsvc.app import create_app as create_search_app
from searchsvc.settings import SearchSettings
from tests.fakes import FakeCatalog, FakeEmbedder, FakeVectorStore
from tests.unit.deploy import promql
from tests.unit.deploy.manifests import (
    EVERYTHING,
    EXAMPLE,
    GIVEN,
    KEYS,
    ROOT,
    TARGET,
    WORKLOADS,
    Manifest,
    container_of,
    of_kind,
    pod_of,
    read,
    settings,
)
from tests.unit.deploy.test_compose import REPOSITORY
from tests.unit.deploy.test_dockerfile import PORTS
from tests.unit.model_service.fakes import fake_parts
from watcher.metrics import IngestionMetrics
from watcher.queue.routes import make_app as make_worker_app
from watcher.routes import make_app as make_watcher_app

of_each = pytest.mark.parametrize("name", WORKLOADS)


# --- who answers whom


def _apps(folder: Path) -> dict[str, web.Application]:
    search = SearchSettings(images_dir=folder, data_dir=folder)
    gate, anything = Gate(KnownHosts(listens_on="0.0.0.0")), cast("Any", None)
    return {
        "searchsvc": create_search_app(search, embedder=FakeEmbedder(), vectors=FakeVectorStore(), catalog=FakeCatalog()),
        "watcher": make_watcher_app(anything, IngestionMetrics(service_registry()), anything, gate),
        "worker": make_worker_app(anything, IngestionMetrics(service_registry()), anything, gate),
        "model-service": create_model_app(ModelSettings(), load=lambda _: fake_parts()),
    }


def test_probes_ask_routes_that_exist_and_stop_nothing_that_lives(tmp_path: Path) -> None:
    for name, app in _apps(tmp_path).items():
        routes = {resource.canonical for resource in app.router.resources()}
        container = container_of(WORKLOADS[name])
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in routes
            assert asked["port"] == "http"
        assert container["livenessProbe"]["httpGet"]["path"] == "/health/live"
        assert container["startupProbe"]["httpGet"]["path"] == "/health/live"
        assert "/metrics" in routes


def test_an_outage_of_one_service_takes_no_other_out_of_use() -> None:
    """Who is asked by others is ready while it lives: its readiness route tells of those that it asks."""
    for name in ("searchsvc", "watcher"):
        assert container_of(WORKLOADS[name])["readinessProbe"]["httpGet"]["path"] == "/health/live"


def test_ports_are_those_that_the_services_listen_on() -> None:
    for name, workload in WORKLOADS.items():
        assert container_of(workload)["ports"] == [{"name": "http", "containerPort": int(PORTS[TARGET[name]])}]
    services = of_kind("Service", EVERYTHING)
    assert set(services) == {"searchsvc", "watcher", "model-service"}
    for name, service in services.items():
        assert service["spec"]["selector"] == {"app.kubernetes.io/name": name}
        assert service["spec"]["ports"] == [{"name": "http", "port": int(PORTS[TARGET[name]]), "targetPort": "http"}]
    assert services["model-service"]["spec"]["clusterIP"] == "None"
    assert GIVEN["WATCHER_URL"] == f"http://watcher:{PORTS['watcher']}"


def test_an_ingress_leads_to_the_page_and_lets_the_largest_picture_through() -> None:
    ingress = of_kind("Ingress", EVERYTHING)["searchsvc"]
    (rule,) = ingress["spec"]["rules"]
    assert rule["http"]["paths"][0]["backend"]["service"] == {"name": "searchsvc", "port": {"name": "http"}}
    assert rule["host"] in settings(EXAMPLE)["ALLOWED_HOSTS"].split(",")
    size = ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"]
    assert int(size.removesuffix("m")) * 2**20 > SearchSettings.model_fields["max_image_bytes"].default
    for network in settings(EXAMPLE)["TRUSTED_PROXIES"].split(","):
        ipaddress.ip_network(network)


# --- network


def _policies() -> list[Manifest]:
    return [manifest["spec"] for manifest in EVERYTHING if manifest["kind"] == "NetworkPolicy"]


def _selects(selector: Manifest, name: str) -> bool:
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "imagesearch"}
    matched = all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())
    return matched and all(labels[one["key"]] in one["values"] for one in selector.get("matchExpressions", []))


def _may(side: str, name: str, peer: str | None, port: int) -> bool:
    """Whether `name` may be asked by (`ingress`) or ask (`egress`) this peer of ours, or anybody, at this port."""
    for policy in _policies():
        if _selects(policy["podSelector"], name):
            for rule in policy.get(side, []):
                peers = rule.get("from" if side == "ingress" else "to")
                at_port = any(one["port"] == port for one in rule["ports"])
                if at_port and (
                    peers is None or any(peer and _selects(p["podSelector"], peer) for p in peers if "podSelector" in p)
                ):
                    return True
    return False


def test_every_pod_is_closed_but_for_what_is_opened() -> None:
    closed = of_kind("NetworkPolicy", EVERYTHING)["nothing-else"]["spec"]
    assert closed == {
        "podSelector": {"matchLabels": {"app.kubernetes.io/part-of": "imagesearch"}},
        "policyTypes": ["Ingress", "Egress"],
    }


@pytest.mark.parametrize(
    ("asks", "asked"),
    [("searchsvc", "watcher"), *((caller, "model-service") for caller in ("searchsvc", "watcher", "worker"))],
)
def test_whoever_has_to_ask_may_on_both_sides(asks: str, asked: str) -> None:
    port = int(PORTS[TARGET[asked]])
    assert _may("egress", asks, asked, port)
    assert _may("ingress", asked, asks, port)


@pytest.mark.parametrize(("asks", "asked"), [("model-service", "watcher"), ("worker", "watcher"), ("model-service", "searchsvc")])
def test_nobody_asks_whom_it_need_not(asks: str, asked: str) -> None:
    assert not _may("egress", asks, asked, int(PORTS[TARGET[asked]]))


def test_workers_are_asked_by_nobody_but_prometheus() -> None:
    assert not any(_may("ingress", "worker", peer, int(PORTS["worker"])) for peer in WORKLOADS)


def test_every_home_is_reached_by_who_needs_it_and_by_nobody_else() -> None:
    addresses = [
        *GIVEN["QDRANT_URL"].split(","),
        settings(EXAMPLE)["IMAGES_S3_ENDPOINT"],
        KEYS["DATABASE_URL"],
        KEYS["BROKER_URL"],
    ]
    ports = {port for port in (urlsplit(address).port for address in addresses) if port is not None}
    assert ports == {6333, 9000, 5432, 6379}
    for port in {*ports, 443, 6334, 53}:
        assert all(_may("egress", name, None, port) for name in ("searchsvc", "watcher", "worker"))
    assert not any(_may("egress", "model-service", None, port) for port in ports)


def test_prometheus_reaches_every_port_that_it_asks() -> None:
    (policy,) = [manifest for manifest in read(ROOT / "components/monitoring") if manifest["kind"] == "NetworkPolicy"]
    (rule,) = policy["spec"]["ingress"]
    assert {str(one["port"]) for one in rule["ports"]} == set(PORTS.values())
    (monitor,) = of_kind("PodMonitor", EVERYTHING).values()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert all(_selects(monitor["spec"]["selector"], name) for name in WORKLOADS)


# --- coming and going


@of_each
def test_one_pod_of_a_service_may_be_taken_away_at_a_time_and_another_is_left(name: str) -> None:
    budget = of_kind("PodDisruptionBudget", EVERYTHING)[name]["spec"]
    assert budget["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
    assert budget["maxUnavailable"] == 1
    assert WORKLOADS[name]["spec"]["replicas"] > 1


@of_each
def test_a_pod_is_given_the_time_that_its_service_takes_to_end(name: str) -> None:
    pod, container = pod_of(WORKLOADS[name]), container_of(WORKLOADS[name])
    before = float(container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])[1])
    assert pod["terminationGracePeriodSeconds"] >= before + float(GIVEN["SHUTDOWN_GRACE_S"]) + 10
    assert float(GIVEN["DRAIN_S"]) < float(GIVEN["SHUTDOWN_GRACE_S"])


def test_who_balances_has_heard_of_an_end_before_the_search_service_ends() -> None:
    """It stops to listen at once after SIGTERM; a model service says so first."""
    assert container_of(WORKLOADS["searchsvc"])["lifecycle"]["preStop"] == {"exec": {"command": ["sleep", "5"]}}


def test_an_update_of_search_takes_no_pod_away_before_another_is_there() -> None:
    for name in ("searchsvc", "watcher"):
        assert WORKLOADS[name]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_what_scales_is_asked_of_metrics_that_exist() -> None:
    exposed = set(re.findall(r"^\| `(\w+)` \|", (REPOSITORY / "docs/how-to/watch-it-run.md").read_text(), re.MULTILINE))
    for name, scaled in of_kind("ScaledObject", EVERYTHING).items():
        (trigger,) = scaled["spec"]["triggers"]
        assert {selector.metric for selector in promql.selectors(trigger["metadata"]["query"])} <= exposed
        assert scaled["spec"]["scaleTargetRef"]["name"] == name
        assert scaled["spec"]["scaleTargetRef"].get("kind", "Deployment") == WORKLOADS[name]["kind"]
        assert 1 < scaled["spec"]["minReplicaCount"] < scaled["spec"]["maxReplicaCount"]
        assert scaled["spec"]["minReplicaCount"] > of_kind("PodDisruptionBudget", EVERYTHING)[name]["spec"]["maxUnavailable"]
    search = of_kind("HorizontalPodAutoscaler", EVERYTHING)["searchsvc"]["spec"]
    assert search["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "searchsvc"}
    assert search["minReplicas"] >= WORKLOADS["searchsvc"]["spec"]["replicas"]


def test_a_gpu_is_asked_for_where_the_models_run_and_they_must_use_it() -> None:
    patch = yaml.safe_load((ROOT / "components/gpu/model-service.yaml").read_text())
    assert (patch["kind"], patch["metadata"]["name"]) == ("StatefulSet", "model-service")
    container = container_of(patch)
    assert container["name"] == container_of(WORKLOADS["model-service"])["name"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["env"] == [{"name": "MODEL_DEVICE", "value": "cuda"}]
