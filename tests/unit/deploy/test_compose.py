"""The compose file against the images, the settings and itself; no engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from model_service.settings import ModelSettings
from searchsvc.settings import SearchSettings
from tests.unit.deploy.test_dockerfile import PORTS, STAGES, TARGETS
from watcher.settings import WatcherSettings

REPOSITORY = Path(__file__).resolve().parents[3]
SETTINGS = {"watcher": WatcherSettings, "searchsvc": SearchSettings, "model_service": ModelSettings}

S3_KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"}
"""Read by the libraries that speak to a bucket, under the names that all of those know."""

COMPOSE: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def _client() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return None


def test_a_compose_client_accepts_it() -> None:
    client = _client()
    if client is None:
        pytest.skip("no compose client is installed")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    command = [*client, "--file", str(REPOSITORY / "docker-compose.yml"), "config", "--quiet"]
    checked = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert checked.returncode == 0, checked.stderr


def test_it_holds_the_three_services_and_what_they_need() -> None:
    assert set(SERVICES) == {*TARGETS, "qdrant", "prometheus", "grafana"}
    assert all(service["restart"] == "unless-stopped" for service in SERVICES.values())


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_is_built_from_a_target_that_exists(name: str) -> None:
    assert SERVICES[name]["build"]["target"] in STAGES


@pytest.mark.parametrize("name", TARGETS)
def test_a_service_cannot_write_to_its_image_nor_gain_rights(name: str) -> None:
    assert SERVICES[name]["read_only"] is True
    assert "/tmp" in {mount.partition(":")[0] for mount in SERVICES[name]["tmpfs"]}  # noqa: S108 - of the container


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_capabilities_gains_rights_or_reaches_into_the_host(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"}
    assert not [mount for mount in service.get("volumes", []) if "docker.sock" in mount or mount.startswith("/")]


@pytest.mark.parametrize("name", TARGETS)
def test_every_variable_of_a_service_is_one_of_its_settings(name: str) -> None:
    fields = {field.upper() for field in SETTINGS[name].model_fields}
    assert set(SERVICES[name]["environment"]) - S3_KEYS <= fields
    image_environment = {
        pair.partition("=")[0] for i, v in [*STAGES["runtime"], *STAGES[name]] if i == "ENV" for pair in v.split() if "=" in pair
    }
    of_python = {"PATH", "HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    every_field = {field.upper() for settings in SETTINGS.values() for field in settings.model_fields}
    assert image_environment - of_python <= every_field


@pytest.mark.parametrize("name", ["watcher", "searchsvc"])
def test_services_find_each_other_by_name_and_port(name: str) -> None:
    environment = SERVICES[name]["environment"]
    assert environment["MODEL_URL"] == f"http://model_service:{PORTS['model_service']}"
    assert environment["QDRANT_URL"] == "${QDRANT_URL:-http://qdrant:6333}"
    if name == "searchsvc":
        assert environment["WATCHER_URL"] == f"http://watcher:{PORTS['watcher']}"


def test_only_the_loopback_address_is_published_unless_told_otherwise() -> None:
    published = {name: service.get("ports", []) for name, service in SERVICES.items()}
    assert published["searchsvc"] == ["${BIND_ADDRESS:-127.0.0.1}:${PORT:-3000}:3000"]
    assert published["grafana"] == ["${BIND_ADDRESS:-127.0.0.1}:3001:3000"]
    assert not published["watcher"]
    assert not published["model_service"]
    assert not published["qdrant"]
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for ports in published.values() for port in ports)


def test_every_image_is_pinned() -> None:
    for name, service in SERVICES.items():
        tag = service["image"].rpartition(":")[2]
        assert re.match(r"v?\d+\.\d+\.\d+", tag), f"{name}: {service['image']}"


def test_every_named_volume_is_declared_and_used() -> None:
    mounted = {mount.rpartition(":/")[0] for service in SERVICES.values() for mount in service.get("volumes", [])}
    sources = {re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", source) for source in mounted}
    assert {source for source in sources if not source.startswith((".", "/"))} == set(COMPOSE["volumes"])


def test_the_watched_folder_is_the_same_for_watcher_and_search() -> None:
    folder = "${IMAGES_DIR:-./images}:/images"
    assert folder in SERVICES["watcher"]["volumes"]
    assert folder in SERVICES["searchsvc"]["volumes"]


def test_nothing_waits_for_the_health_of_a_service_that_has_no_check() -> None:
    for service in SERVICES.values():
        depends = service.get("depends_on", {})
        waits_for = (
            [name for name, how in depends.items() if how["condition"] == "service_healthy"] if isinstance(depends, dict) else []
        )
        for name in waits_for:
            assert "healthcheck" in SERVICES[name] or name in TARGETS


def test_every_variable_that_it_reads_is_explained_at_its_top() -> None:
    text = (REPOSITORY / "docker-compose.yml").read_text()
    explained = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for variable in set(re.findall(r"\$\{([A-Z0-9_]+)", text)):
        assert re.search(rf"\b{variable}\b", explained), variable


def test_images_carry_the_version_of_the_distribution() -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert {SERVICES[name]["image"] for name in TARGETS} == {f"imagesearch/{name}:{version}" for name in TARGETS}
