"""What a linter would say of the Dockerfile, and what only we know of it."""

from __future__ import annotations

import importlib.util
import json
import re
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from pydantic_settings import BaseSettings

from model_service.settings import ModelSettings
from searchsvc.settings import SearchSettings
from watcher.settings import WatcherSettings, WorkerSettings

REPOSITORY = Path(__file__).resolve().parents[3]
MODULES = {"watcher": "watcher", "worker": "watcher.queue", "searchsvc": "searchsvc", "model_service": "model_service"}
"""What each image runs, by its target."""
TARGETS = tuple(MODULES)
PORTS = {"watcher": "8002", "worker": "8003", "searchsvc": "3000", "model_service": "8001"}

SETTINGS: dict[str, type[BaseSettings]] = {
    "watcher": WatcherSettings,
    "worker": WorkerSettings,
    "searchsvc": SearchSettings,
    "model_service": ModelSettings,
}


class Instruction(NamedTuple):
    name: str
    value: str


def _stages() -> dict[str, list[Instruction]]:
    """The instructions of every named stage, continuation lines joined."""
    text = re.sub(r"\\\n\s*", " ", (REPOSITORY / "Dockerfile").read_text())
    stages: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, _, value = line.strip().partition(" ")
        if name == "FROM":
            parent, _, stage = value.partition(" AS ")
            current = stages[stage] = [Instruction("FROM", parent)]
        else:
            current.append(Instruction(name, value))
    return stages


STAGES = _stages()


def _lineage(stage: str) -> list[Instruction]:
    """A stage's instructions after those of the stages that it builds on."""
    parent = STAGES[stage][0].value
    inherited = _lineage(parent) if parent in STAGES else []
    return [*inherited, *STAGES[stage]]


def _values(stage: str, name: str) -> list[str]:
    return [instruction.value for instruction in _lineage(stage) if instruction.name == name]


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_runs_as_a_user_without_rights(target: str) -> None:
    users = _values(target, "USER")
    assert users
    assert users[-1] not in {"root", "0"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_starts_and_is_checked_without_a_shell(target: str) -> None:
    entrypoint = json.loads(_values(target, "ENTRYPOINT")[-1])
    assert entrypoint == ["python", "-m", MODULES[target]]
    assert importlib.util.find_spec(f"{MODULES[target]}.__main__") is not None
    check = json.loads(_values(target, "HEALTHCHECK")[-1].partition("CMD ")[2])
    assert check[:2] == ["python", "-c"]
    assert "/health/live" in check[2]
    compile(check[2], "healthcheck", "exec")


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_answers_where_its_health_is_asked_for(target: str) -> None:
    source = "".join(path.read_text() for path in (REPOSITORY / MODULES[target].replace(".", "/")).rglob("*.py"))
    assert '"/health/live"' in source


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_listens_where_the_image_says_so(target: str) -> None:
    assert _values(target, "EXPOSE") == [PORTS[target]]
    environment = " ".join(_values(target, "ENV"))
    assert f"PORT={PORTS[target]}" in environment
    assert "HOST=0.0.0.0" in environment


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_that_runs_holds_no_tool_that_installs(target: str) -> None:
    commands = " ".join(_values(target, "RUN"))
    assert "pip install" not in commands
    assert "apt-get" not in commands


def test_only_the_model_service_gets_the_packages_of_the_models() -> None:
    assert any("--extra model" in value for value in _values("model_venv", "RUN"))
    assert not any("--extra model" in value for value in _values("service_venv", "RUN"))
    copied = {target: [v for v in _values(target, "COPY") if "/opt/venv" in v] for target in TARGETS}
    assert copied["model_service"] == ["--from=model_venv /opt/venv /opt/venv"]
    assert copied["watcher"] == copied["worker"] == copied["searchsvc"] == ["--from=service_venv /opt/venv /opt/venv"]


def test_services_get_the_packages_of_every_home_that_they_can_be_given() -> None:
    extras = set(re.findall(r"--extra (\w+)", " ".join(_values("service_venv", "RUN"))))
    assert extras == {"postgres", "queue", "s3"}
    assert extras <= tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    assert set(re.findall(r"--extra (\w+)", " ".join(_values("model_venv", "RUN")))) == {"model"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_service_listens_by_default_where_its_image_does(target: str) -> None:
    assert str(SETTINGS[target].model_fields["port"].default) == PORTS[target]


def test_every_dependency_comes_from_the_lock_with_its_hash() -> None:
    installs = [v for stage in STAGES for i, v in STAGES[stage] if i == "RUN" and "uv pip install" in v]
    assert installs
    for command in installs:
        from_lock = "--constraint requirements.lock --require-hashes" in command
        own_wheel = "--no-deps" in command and "/dist/" in command
        assert from_lock or own_wheel, command


def test_nothing_is_taken_at_whatever_version_is_newest() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()
    assert not re.search(r":latest\b", text)
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11-slim", text, re.MULTILINE)
    assert re.search(r"pip install [^\n]*\buv==\d", text)


def test_the_build_context_holds_what_is_copied_and_no_more() -> None:
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for stage in STAGES
        for name, value in STAGES[stage]
        if name == "COPY" and not value.startswith("--from")
        for source in value.split()[:-1]
    }
    assert allowed == copied
    assert all((REPOSITORY / name).exists() for name in allowed)
