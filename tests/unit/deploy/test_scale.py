"""The scaled compose file: what it must have beyond what both have, and what stands beside it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.images.places import BucketPlace
from searchsvc.settings import SearchSettings
from searchsvc.urls import API
from tests.unit.deploy import promql
from tests.unit.deploy.test_compose import FORMS, REPOSITORY, SCALED, accepted, target_of
from tests.unit.deploy.test_dockerfile import PORTS, SETTINGS, STAGES
from watcher.settings import WorkerSettings

FORM = FORMS[SCALED]
SERVICES: dict[str, dict[str, Any]] = FORM["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
HAPROXY = (REPOSITORY / "deploy/haproxy/haproxy.cfg").read_text()
SECRETS = dict.fromkeys(
    ("JWT_SECRET", "POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD", "S3_SECRET_KEY", "EVENTS_KEY"), "0123456789abcdef0123456789abcdef"
)


def environment(name: str) -> dict[str, str]:
    """Of a service, where nothing but the secrets is set."""

    def value(found: re.Match[str]) -> str:
        return SECRETS[found[1]] if found[2] == ":?" else found[3]

    return {
        variable: re.sub(r"\$\{([A-Z0-9_]+)(:[-?])([^}]*)\}", value, given)
        for variable, given in SERVICES[name]["environment"].items()
    }


def test_a_compose_client_accepts_it_with_its_secrets(tmp_path: Path) -> None:
    checked = accepted(SCALED, SECRETS, tmp_path)
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("missing", SECRETS)
def test_nothing_starts_without_a_secret_nor_with_an_empty_one(missing: str, tmp_path: Path) -> None:
    for given in (SECRETS.keys() - {missing}, SECRETS.keys()):
        checked = accepted(SCALED, {name: "" if name == missing else SECRETS[name] for name in given}, tmp_path)
        assert checked.returncode != 0
        assert "set it in .env" in checked.stderr


def test_it_holds_what_it_promises() -> None:
    assert {target_of(service) for service in OURS.values()} == set(SETTINGS)
    assert SERVICES["searchsvc"]["deploy"]["replicas"] == "${SEARCHES:-2}"
    assert SERVICES["worker"]["deploy"]["replicas"] == "${WORKERS:-3}"
    assert [name for name in OURS if target_of(OURS[name]) == "model_service"] == ["model_service", "model_service_2"]
    assert {"qdrant-1", "qdrant-2", "qdrant-3", "postgres", "redis", "minio", "prometheus", "grafana", "balancer"} <= set(
        SERVICES
    )


@pytest.mark.parametrize("name", OURS)
def test_a_service_is_content_with_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = [*STAGES["runtime"], *STAGES[target_of(OURS[name])]]
    of_image = dict(
        pair.split("=", 1) for i, v in image if i == "ENV" for pair in v.split() if "=" in pair and "PATH" not in pair
    )
    for variable, value in {**of_image, **environment(name)}.items():
        monkeypatch.setenv(variable, value)
    settings = SETTINGS[target_of(OURS[name])]()
    if isinstance(settings, SearchSettings | WorkerSettings):
        assert settings.database is not None
        assert settings.bucket_place == BucketPlace.of("s3://pictures", endpoint="http://minio:9000")
        assert len(settings.model_services) == 2
    if isinstance(settings, SearchSettings):
        assert settings.jwt_secret == SECRETS["JWT_SECRET"]
        assert settings.api_keys == (SECRETS["EVENTS_KEY"],)


def test_every_address_within_is_a_service_at_its_port() -> None:
    ports = {**{name: {PORTS[target_of(service)]} for name, service in OURS.items()}, "balancer": {"3000"}}
    ports |= {"postgres": {"5432"}, "redis": {"6379"}, "minio": {"9000"}, **{f"qdrant-{n}": {"6333"} for n in (1, 2, 3)}}
    found = {
        (host, port)
        for name, service in SERVICES.items()
        for value in (environment(name) if "environment" in service else {}).values()
        for host, port in re.findall(r"://(?:[^/@,]*@)?([a-z0-9_-]+):(\d+)", value)
    }
    assert {host for host, _ in found} == ports.keys() - {"searchsvc", "worker"}
    assert [(host, port) for host, port in found if port not in ports[host]] == []


def test_what_all_of_a_kind_must_have_alike_they_have() -> None:
    shared = ("DATABASE_URL", "QDRANT_URL", "IMAGES_URL", "MODEL_URLS")
    for variable in shared:
        assert len({environment(name)[variable] for name in ("searchsvc", "watcher", "worker")}) == 1
    assert environment("watcher")["BROKER_URL"] == environment("worker")["BROKER_URL"]


def test_only_the_loopback_address_is_published_and_no_database_is() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"balancer", "minio", "prometheus", "grafana"}
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for ports in published.values() for port in ports)
    assert published["balancer"] == ["${BIND_ADDRESS:-127.0.0.1}:${PORT:-3000}:3000"]
    numbers = [port.split(":")[-2] for ports in published.values() for port in ports]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert "mem_limit" in service
    assert service["restart"] == ("no" if name == "bucket" else "unless-stopped")


def _bytes(size: str) -> int:
    size = re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", size)
    return int(size[:-1]) * {"m": 2**20, "g": 2**30}[size[-1]]


@pytest.mark.parametrize("name", OURS)
def test_a_service_may_take_the_memory_of_a_picture_beside_its_own(name: str) -> None:
    """What is bounded to DECODE_MEMORY_BYTES is one process; a limit below would end the service instead of the picture."""
    settings = SETTINGS[target_of(OURS[name])].model_fields
    assert _bytes(OURS[name]["mem_limit"]) >= settings["decode_memory_bytes"].default + 2**30


def test_redis_refuses_rather_than_forgets_and_has_room_for_its_bound() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert _bytes(SERVICES["redis"]["mem_limit"]) > int(command[command.index("--maxmemory") + 1].removesuffix("mb")) * 2**20


def test_postgres_takes_the_connections_of_all_processes() -> None:
    command = " ".join(SERVICES["postgres"]["command"])
    most = int(re.search(r"max_connections=(\d+)", command)[1])  # type: ignore[index]
    of_one = WorkerSettings.model_fields["database_connections"].default
    assert (2 + 1 + 16) * (of_one + 2) <= most - 10


def test_every_node_of_qdrant_knows_its_name_and_joins_the_first() -> None:
    for number in (1, 2, 3):
        name = f"qdrant-{number}"
        command = SERVICES[name]["command"]
        assert command[command.index("--uri") + 1] == f"http://{name}:6335"
        assert ("--bootstrap" in command) == (number > 1)
        assert f"qdrant_{number}:/qdrant/storage" in SERVICES[name]["volumes"]
        assert "qdrant-1" not in {waited for waited, how in _waits(name).items() if how == "service_healthy"}
    assert int(environment("watcher")["QDRANT_REPLICAS"]) <= 3


def _waits(name: str) -> dict[str, str]:
    return {waited: how["condition"] for waited, how in SERVICES[name].get("depends_on", {}).items()}


def test_nobody_waits_in_a_circle() -> None:
    done: set[str] = set()
    while left := SERVICES.keys() - done:
        free = {name for name in left if _waits(name).keys() <= done}
        assert free, f"these wait for each other: {left}"
        done |= free


def test_services_wait_for_the_bucket_to_be_made_and_for_their_homes() -> None:
    for name in ("searchsvc", "watcher", "worker"):
        waits = _waits(name)
        assert waits["bucket"] == "service_completed_successfully"
        assert waits["postgres"] == "service_healthy"


# --- the balancer


def test_the_balancer_asks_the_search_service_where_it_listens() -> None:
    assert f"searchsvc:{PORTS['searchsvc']}" in HAPROXY
    check = re.search(r"http-check send meth GET uri (\S+)", HAPROXY)
    assert check is not None
    assert check[1] == "/health/live"
    template = re.search(r"server-template search (\d+)", HAPROXY)
    assert template is not None
    assert int(template[1]) >= 4


def test_the_balancer_waits_longer_than_the_search_service_takes() -> None:
    settings = SearchSettings.model_fields
    for side in ("client", "server"):
        found = re.search(rf"timeout {side} (\d+)s", HAPROXY)
        assert found is not None
        assert float(found[1]) > max(settings["query_timeout_s"].default, settings["receive_timeout_s"].default)


def test_whoever_asks_another_shares_a_network_with_it() -> None:
    asks = {
        (name, host)
        for name, service in SERVICES.items()
        for value in (environment(name) if "environment" in service else {}).values()
        for host in re.findall(r"://(?:[^/@,]*@)?([a-z0-9_-]+):\d", value)
    }
    asks |= {("balancer", "searchsvc"), *(("prometheus", host) for targets in _jobs().values() for host, _ in targets)}
    assert [pair for pair in sorted(asks) if not _networks(pair[0]) & _networks(pair[1])] == []


def _networks(name: str) -> set[str]:
    return set(SERVICES[name].get("networks", ["default"]))


def test_the_balancer_repeats_no_request_that_was_sent() -> None:
    assert re.findall(r"retry-on (.*)", HAPROXY) == ["conn-failure"]


def test_only_the_balancer_is_believed_for_whom_it_asks() -> None:
    address = SERVICES["balancer"]["networks"]["front"]["ipv4_address"]
    assert SERVICES["searchsvc"]["environment"]["TRUSTED_PROXIES"].startswith(f"{address},")
    assert FORM["networks"]["front"]["ipam"]["config"] == [{"subnet": f"{address.removesuffix('.2')}.0/24"}]
    assert list(SERVICES["balancer"]["networks"]) == ["front"], (
        "with another network in common, its name for who asks would be another"
    )
    assert "option forwardfor" in HAPROXY


# --- the bucket


def test_the_bucket_is_that_of_the_services_and_its_user_may_no_more_than_they_need() -> None:
    script = (REPOSITORY / "deploy/minio/bucket.sh").read_text()
    bucket = environment("worker")["IMAGES_URL"].removeprefix("s3://")
    assert f"mc mb --ignore-existing home/{bucket}" in script
    assert f"mc admin user add home {environment('worker')['AWS_ACCESS_KEY_ID']} " in script
    policy = yaml.safe_load((REPOSITORY / "deploy/minio/pictures.json").read_text())
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert actions == {"s3:ListBucket", "s3:GetBucketLocation", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    assert {r for statement in policy["Statement"] for r in statement["Resource"]} == {
        f"arn:aws:s3:::{bucket}",
        f"arn:aws:s3:::{bucket}/*",
    }


def test_the_bucket_tells_a_route_that_exists_with_a_key_that_is_known() -> None:
    told = environment("minio")
    assert told["MINIO_NOTIFY_WEBHOOK_ENDPOINT_IMAGES"] == f"http://balancer:3000{API}/image-events"
    assert told["MINIO_NOTIFY_WEBHOOK_AUTH_TOKEN_IMAGES"] in environment("searchsvc")["API_KEYS"].split(",")
    assert "arn:minio:sqs::IMAGES:webhook" in (REPOSITORY / "deploy/minio/bucket.sh").read_text()


# --- Prometheus


def _jobs() -> dict[str, list[tuple[str, str]]]:
    prometheus = yaml.safe_load((REPOSITORY / "deploy/prometheus/prometheus.scale.yml").read_text())
    jobs: dict[str, list[tuple[str, str]]] = {}
    for job in prometheus["scrape_configs"]:
        named = [(name, str(found["port"])) for found in job.get("dns_sd_configs", []) for name in found["names"]]
        fixed = [tuple(target.split(":")) for found in job.get("static_configs", []) for target in found["targets"]]
        jobs[job["job_name"]] = [*named, *fixed]
    return jobs


def test_prometheus_asks_every_container_of_ours_and_every_node() -> None:
    jobs = _jobs()
    asked = {name: port for targets in jobs.values() for name, port in targets}
    assert {name: asked[name] for name in OURS} == {name: PORTS[target_of(service)] for name, service in OURS.items()}
    assert [name for name, _ in jobs["qdrant"]] == ["qdrant-1", "qdrant-2", "qdrant-3"]
    assert asked["balancer"] == "8405"
    assert "bind :8405" in HAPROXY


def test_prometheus_finds_its_rules_where_they_are_mounted() -> None:
    mounted = {mount.split(":")[1]: mount.split(":")[0] for mount in SERVICES["prometheus"]["volumes"]}
    configured = next(flag.partition("=")[2] for flag in SERVICES["prometheus"]["command"] if "config.file" in flag)
    for name in yaml.safe_load((REPOSITORY / mounted[configured]).read_text())["rule_files"]:
        assert (REPOSITORY / mounted[f"/etc/prometheus/{name}"]).is_file()


def test_alerts_of_the_scaled_form_name_its_jobs() -> None:
    groups = yaml.safe_load((REPOSITORY / "deploy/prometheus/alerts.scale.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    asked = [selector for rule in rules for selector in promql.selectors(rule["expr"])]
    assert {selector.metric for selector in asked} == {"up"}
    assert {matcher.value for selector in asked for matcher in selector.matchers} == {"searchsvc", "watcher", "worker"}
    page = (REPOSITORY / "docs/how-to/run-in-containers.md").read_text()
    assert all(f"`{rule['alert']}`" in page for rule in rules)
