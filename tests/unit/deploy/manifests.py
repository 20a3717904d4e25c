"""The Kubernetes manifests as they stand in the files, and as kustomize makes one of them where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3] / "deploy" / "kubernetes"
EXAMPLE = ROOT / "overlays" / "example"

Manifest = dict[str, Any]

RUNS = {"Deployment", "StatefulSet"}
OF_OTHERS = {"ScaledObject", "PodMonitor"}
"""Kinds that operators bring: their schemas are not Kubernetes'."""


def read(folder: Path) -> list[Manifest]:
    """Everything of a folder that is sent to a cluster as it stands; patches are not."""
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text()).get("resources", [])
    files = [folder / name for name in resources if name.endswith(".yaml")]
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def settings(folder: Path, name: str = "settings.env") -> dict[str, str]:
    """Of a file that a ConfigMap or a Secret is made of."""
    lines = (folder / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def components() -> list[Path]:
    return sorted(path.parent for path in (ROOT / "components").glob("*/kustomization.yaml"))


def workloads(manifests: list[Manifest]) -> dict[str, Manifest]:
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] in RUNS}


def pod_of(workload: Manifest) -> Manifest:
    pod: Manifest = workload["spec"]["template"]["spec"]
    return pod


def container_of(workload: Manifest) -> Manifest:
    (container,) = pod_of(workload)["containers"]
    found: Manifest = container
    return found


def builder() -> list[str] | None:
    if shutil.which("kustomize"):
        return ["kustomize", "build"]
    return ["kubectl", "kustomize"] if shutil.which("kubectl") else None


def built(overlay: Path) -> list[Manifest]:
    """Raises CalledProcessError, with what was said."""
    command = builder()
    assert command is not None
    environment = {"PATH": os.environ["PATH"], "HOME": str(overlay)}
    made = subprocess.run([*command, str(overlay)], capture_output=True, text=True, check=True, timeout=60, env=environment)
    return list(yaml.safe_load_all(made.stdout))


BASE = read(ROOT / "base")
WORKLOADS = workloads(BASE)
TARGET = {name: name.replace("-", "_") for name in WORKLOADS}
"""Of the images, by workload: Kubernetes' names have no `_`."""
GIVEN = settings(ROOT / "base")
KEYS = settings(EXAMPLE, "secrets.env.example")
EVERYTHING = [*BASE, *read(EXAMPLE), *(manifest for folder in components() for manifest in read(folder))]


def of_kind(kind: str, manifests: list[Manifest]) -> dict[str, Manifest]:
    """By name."""
    return {manifest["metadata"]["name"]: manifest for manifest in manifests if manifest["kind"] == kind}
