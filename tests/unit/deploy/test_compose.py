"""The compose files against the images, the settings and themselves; no engine is needed. Of the scaled one alone: test_scale.py."""

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

from tests.unit.deploy.test_dockerfile import PORTS, SETTINGS, STAGES

REPOSITORY = Path(__file__).resolve().parents[3]
TARGETS = ("watcher", "searchsvc", "model_service")
"""Of the plain form: its watcher ingests, without workers."""

S3_KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"}
"""Read by the libraries that speak to a bucket, under the names that all of those know."""

PLAIN, SCALED = "docker-compose.yml", "docker-compose.scale.yml"
FORMS: dict[str, dict[str, Any]] = {name: yaml.safe_load((REPOSITORY / name).read_text()) for name in (PLAIN, SCALED)}
SERVICES: dict[str, dict[str, Any]] = FORMS[PLAIN]["services"]

in_each_form = pytest.mark.parametrize("form", FORMS)
of_each_form = pytest.mark.parametrize(("form", "name"), [(form, name) for form in FORMS for name in FORMS[form]["services"]])
ours_of_each_form = pytest.mark.parametrize(
    ("form", "name"), [(form, name) for form in FORMS for name, service in FORMS[form]["services"].items() if "build" in service]
)


def _client() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    docker = shutil.which("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0:
        return [docker, "compose"]
    return None


def accepted(form: str, variables: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """What a compose client says of it, from a folder without an `.env`. Skips where there is none."""
    client = _client()
    if client is None:
        pytest.skip("no compose client is installed")
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), **variables}
    command = [*client, "--project-directory", str(folder), "--file", str(REPOSITORY / form), "config", "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)


def test_a_compose_client_accepts_it(tmp_path: Path) -> None:
    checked = accepted(PLAIN, {}, tmp_path)
    assert checked.returncode == 0, checked.stderr


def test_it_holds_the_three_services_and_what_they_need() -> None:
    assert set(SERVICES) == {*TARGETS, "qdrant", "prometheus", "grafana"}
    assert all(service["restart"] == "unless-stopped" for service in SERVICES.values())


def target_of(service: dict[str, Any]) -> str:
    target: str = service["build"]["target"]
    return target


@ours_of_each_form
def test_a_service_is_built_from_a_target_that_exists(form: str, name: str) -> None:
    assert target_of(FORMS[form]["services"][name]) in STAGES


@ours_of_each_form
def test_a_service_cannot_write_to_its_image_nor_gain_rights(form: str, name: str) -> None:
    service = FORMS[form]["services"][name]
    assert service["read_only"] is True
    assert "/tmp" in {mount.partition(":")[0] for mount in service["tmpfs"]}  # noqa: S108 - of the container


@of_each_form
def test_no_container_has_capabilities_gains_rights_or_reaches_into_the_host(form: str, name: str) -> None:
    service = FORMS[form]["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.keys() & {"privileged", "cap_add", "devices", "pid", "ipc", "network_mode", "userns_mode"}
    assert not [mount for mount in service.get("volumes", []) if "docker.sock" in mount or mount.startswith("/")]


@ours_of_each_form
def test_every_variable_of_a_service_is_one_of_its_settings(form: str, name: str) -> None:
    service = FORMS[form]["services"][name]
    fields = {field.upper() for field in SETTINGS[target_of(service)].model_fields}
    assert set(service["environment"]) - S3_KEYS <= fields
    image_environment = {
        pair.partition("=")[0]
        for i, v in [*STAGES["runtime"], *STAGES[target_of(service)]]
        if i == "ENV"
        for pair in v.split()
        if "=" in pair
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


@of_each_form
def test_every_image_is_pinned(form: str, name: str) -> None:
    tag = FORMS[form]["services"][name]["image"].rpartition(":")[2]
    assert re.match(r"v?\d+\.\d+(\.\d+)?(-alpine)?$|RELEASE\.\d{4}(-\d\d){2}T", tag)


@in_each_form
def test_every_named_volume_is_declared_and_used(form: str) -> None:
    services = FORMS[form]["services"].values()
    mounted = {re.sub(r":/[^:]*(:ro)?$", "", mount) for service in services for mount in service.get("volumes", [])}
    sources = {re.sub(r"\$\{[A-Z_]+:-(.*)\}", r"\1", source) for source in mounted}
    assert {source for source in sources if not source.startswith((".", "/"))} == set(FORMS[form]["volumes"])
    assert all((REPOSITORY / source).exists() for source in sources if source.startswith("./deploy"))


def test_the_watched_folder_is_the_same_for_watcher_and_search() -> None:
    folder = "${IMAGES_DIR:-./images}:/images"
    assert folder in SERVICES["watcher"]["volumes"]
    assert folder in SERVICES["searchsvc"]["volumes"]


@in_each_form
def test_nothing_waits_for_the_health_of_a_service_that_has_no_check(form: str) -> None:
    services = FORMS[form]["services"]
    for service in services.values():
        depends = service.get("depends_on", {})
        waits_for = (
            [name for name, how in depends.items() if how["condition"] == "service_healthy"] if isinstance(depends, dict) else []
        )
        for name in waits_for:
            assert "healthcheck" in services[name] or "build" in services[name]


@in_each_form
def test_every_variable_that_it_reads_is_explained_at_its_top(form: str) -> None:
    text = (REPOSITORY / form).read_text()
    explained = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    for variable in set(re.findall(r"\$\{([A-Z0-9_]+)", text)):
        assert re.search(rf"\b{variable}\b", explained), variable


@in_each_form
def test_no_variable_is_explained_that_it_does_not_read(form: str) -> None:
    head, _, text = (REPOSITORY / form).read_text().partition("\nx-")
    named = set(re.findall(r"(?:^#   |, |and |; )([A-Z][A-Z0-9_]{3,})\b(?=[ ,:])", head, re.MULTILINE))
    assert len(named) > 10
    assert {name for name in named if not re.search(rf"\$\{{{name}\b|^ +{name}:$", text, re.MULTILINE)} == set()


@ours_of_each_form
def test_images_carry_the_version_of_the_distribution(form: str, name: str) -> None:
    version = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    service = FORMS[form]["services"][name]
    assert service["image"] == f"imagesearch/{target_of(service)}:{version}"


@ours_of_each_form
def test_a_container_is_given_the_time_that_its_service_takes_to_end(form: str, name: str) -> None:
    service = FORMS[form]["services"][name]
    grace = SETTINGS[target_of(service)].model_fields["shutdown_grace_s"].default
    assert float(service["stop_grace_period"].removesuffix("s")) >= grace + 5
