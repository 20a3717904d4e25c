"""The Kubernetes manifests against the images, the settings, the services' routes and each other; no cluster is needed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
import yaml
from pydantic import ValidationError

from core.hosts import KnownHosts
from searchsvc.settings import SearchSettings
from tests.unit.deploy.manifests import (
    EVERYTHING,
    EXAMPLE,
    GIVEN,
    KEYS,
    OF_OTHERS,
    ROOT,
    TARGET,
    WORKLOADS,
    builder,
    built,
    components,
    container_of,
    of_kind,
    pod_of,
    settings,
    workloads,
)
from tests.unit.deploy.test_compose import REPOSITORY, S3_KEYS, SERVICES
from tests.unit.deploy.test_dockerfile import MODULES, PORTS, SETTINGS, STAGES
from tests.unit.deploy.test_monitoring import ALERTS
from tests.unit.deploy.test_scale import SERVICES as SCALED_SERVICES

of_each = pytest.mark.parametrize("name", WORKLOADS)


def _bytes(quantity: str) -> int:
    found = re.fullmatch(r"(\d+)(Mi|Gi)", quantity)
    assert found is not None, quantity
    return int(found[1]) * {"Mi": 2**20, "Gi": 2**30}[found[2]]


# --- as a whole


def _schema_of(version: str) -> Any:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    return lambda manifest: validator.validate(manifest, version, strict=True)


@pytest.mark.parametrize("version", ["1.29", "1.34"])
def test_every_manifest_is_one_that_kubernetes_knows(version: str) -> None:
    validate = _schema_of(version)
    for manifest in EVERYTHING:
        if manifest["kind"] not in OF_OTHERS:
            validate(manifest)


def test_a_manifest_with_a_field_that_is_none_is_found_out() -> None:
    validate = _schema_of("1.34")
    wrong = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": 1, "prot": "TCP"}]}}
    with pytest.raises(Exception, match="prot"):
        validate(wrong)


def _copied(folder: Path, *, secrets: bool = True, all_components: bool = False) -> Path:
    """The overlay of the example, with what its user does to it."""
    shutil.copytree(ROOT, folder / "kubernetes")
    overlay = folder / "kubernetes" / "overlays" / "example"
    if secrets:
        (overlay / "secrets.env").write_text((overlay / "secrets.env.example").read_text())
    if all_components:
        text = (overlay / "kustomization.yaml").read_text()
        (overlay / "kustomization.yaml").write_text(re.sub(r"^  # - (\.\./)", r"  - \1", text, flags=re.MULTILINE))
    return overlay


@pytest.mark.skipif(builder() is None, reason="neither kustomize nor kubectl is installed")
@pytest.mark.parametrize("all_components", [False, True])
def test_kustomize_makes_one_of_it_in_which_every_name_leads_somewhere(all_components: bool, tmp_path: Path) -> None:
    made = built(_copied(tmp_path, all_components=all_components))
    maps, secrets = of_kind("ConfigMap", made), of_kind("Secret", made)
    for workload in workloads(made).values():
        container = container_of(workload)
        assert [source["configMapRef"]["name"] in maps for source in container["envFrom"]] == [True]
        named = {env["valueFrom"]["secretKeyRef"]["name"] for env in container["env"] if "valueFrom" in env}
        assert named <= secrets.keys()
        assert container["image"].startswith("registry.example.org/")
        assert workload["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/part-of"] == "imagesearch"
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in made if one["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}}
    assert scaled == ({"searchsvc", "worker", "model-service"} if all_components else {"searchsvc"})
    assert {name for name, workload in workloads(made).items() if "replicas" not in workload["spec"]} == scaled
    assert {manifest["metadata"].get("namespace") for manifest in made if manifest["kind"] != "Namespace"} == {"imagesearch"}


@pytest.mark.skipif(builder() is None, reason="neither kustomize nor kubectl is installed")
def test_nothing_is_made_without_secrets(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        built(_copied(tmp_path, secrets=False))
    assert "secrets.env" in failed.value.stderr


def test_every_file_belongs_to_a_kustomization() -> None:
    left_out = []
    for folder in (ROOT / "base", EXAMPLE, *components()):
        text = (folder / "kustomization.yaml").read_text()
        files = {path.name for path in folder.iterdir() if path.is_file()} - {"kustomization.yaml"}
        left_out += [folder / name for name in files if name.removesuffix(".example") not in text]
    assert left_out == []


def test_the_example_offers_every_component() -> None:
    offered = set(re.findall(r"\.\./\.\./components/(\w+)", (EXAMPLE / "kustomization.yaml").read_text()))
    assert offered == {folder.name for folder in components()}


def test_secrets_are_kept_out_of_the_repository() -> None:
    assert "/deploy/kubernetes/overlays/*/secrets.env" in (REPOSITORY / ".gitignore").read_text().splitlines()


# --- what runs


def test_every_service_of_ours_runs_with_the_image_of_the_containers() -> None:
    assert set(TARGET.values()) == set(MODULES)
    for name, workload in WORKLOADS.items():
        assert container_of(workload)["image"] == SCALED_SERVICES[TARGET[name]]["image"]
        assert TARGET[name] in STAGES


@of_each
def test_a_pod_is_what_the_strictest_standard_of_kubernetes_asks_for(name: str) -> None:
    pod, container = pod_of(WORKLOADS[name]), container_of(WORKLOADS[name])
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC", "initContainers"}
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"emptyDir"}


@of_each
def test_a_pod_runs_as_the_user_of_its_image(name: str) -> None:
    """The image names its user; Kubernetes believes numbers alone."""
    of_image = {value.partition("=")[0]: value.partition("=")[2] for i, value in STAGES["runtime"] if i == "ARG"}
    context = pod_of(WORKLOADS[name])["securityContext"]
    assert context["runAsUser"] == int(of_image["APP_UID"])
    assert context["runAsGroup"] == context["fsGroup"] == int(of_image["APP_GID"])


@of_each
def test_no_variables_are_made_of_the_names_of_services(name: str) -> None:
    assert pod_of(WORKLOADS[name])["enableServiceLinks"] is False


@of_each
def test_every_folder_that_is_written_to_is_a_volume(name: str) -> None:
    pod, container = pod_of(WORKLOADS[name]), container_of(WORKLOADS[name])
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    own = {value for i, value in STAGES[TARGET[name]] if i == "VOLUME"}
    of_compose = {mount.partition(":")[0] for mount in SCALED_SERVICES[TARGET[name]]["tmpfs"]}
    assert set(mounted) == own | of_compose
    claimed = {claim["metadata"]["name"] for claim in WORKLOADS[name]["spec"].get("volumeClaimTemplates", [])}
    assert set(mounted.values()) == {volume["name"] for volume in pod["volumes"]} | claimed
    assert all("sizeLimit" in volume["emptyDir"] for volume in pod["volumes"])


@of_each
def test_what_a_service_may_keep_fits_into_its_volume(name: str) -> None:
    """A pod that writes more than its volume may hold is ended."""
    fields = SETTINGS[TARGET[name]].model_fields
    kept = sum(int(GIVEN[variable]) for variable in ("IMAGES_CACHE_BYTES", "THUMBNAILS_MAX_BYTES") if variable.lower() in fields)
    sizes = {volume["name"]: _bytes(volume["emptyDir"]["sizeLimit"]) for volume in pod_of(WORKLOADS[name])["volumes"]}
    if TARGET[name] != "model_service":
        assert sizes["data"] >= kept + 2**29


@of_each
def test_a_pod_may_take_the_memory_of_a_picture_beside_its_own(name: str) -> None:
    resources = container_of(WORKLOADS[name])["resources"]
    limit, wanted = _bytes(resources["limits"]["memory"]), _bytes(resources["requests"]["memory"])
    assert limit >= SETTINGS[TARGET[name]].model_fields["decode_memory_bytes"].default + wanted
    assert "cpu" in resources["requests"]
    assert "cpu" not in resources["limits"], "a search that may use no idle core is slower for nothing"


def test_replicas_of_a_service_are_spread_over_nodes_and_zones() -> None:
    for name, workload in WORKLOADS.items():
        spread = pod_of(workload)["topologySpreadConstraints"]
        assert {one["topologyKey"] for one in spread} == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        assert all(one["labelSelector"]["matchLabels"] == {"app.kubernetes.io/name": name} for one in spread)


# --- what they are told


def _told(name: str) -> dict[str, str]:
    """What a service of the base reads, with the secrets of the example."""
    own = {env["name"]: env.get("value") or KEYS.get(env["name"], "") for env in container_of(WORKLOADS[name])["env"]}
    return {**GIVEN, **own}


def test_every_variable_is_a_setting_of_somebody() -> None:
    known = {field.upper() for kind in SETTINGS.values() for field in kind.model_fields} | S3_KEYS
    for folder in (ROOT / "base", EXAMPLE):
        assert settings(folder).keys() <= known
    assert settings(ROOT / "components" / "keda", "models.env").keys() <= known


@of_each
def test_every_secret_is_one_of_the_settings_of_who_gets_it_and_stands_in_the_example(name: str) -> None:
    known = {field.upper() for field in SETTINGS[TARGET[name]].model_fields} | S3_KEYS
    asked = [env for env in container_of(WORKLOADS[name])["env"] if "valueFrom" in env]
    assert {env["name"] for env in asked} <= known
    for env in asked:
        reference = env["valueFrom"]["secretKeyRef"]
        assert reference["name"] == "imagesearch"
        assert reference["key"] == env["name"]
        assert reference.get("optional") or env["name"] in KEYS


def test_nobody_gets_a_secret_that_it_does_not_need() -> None:
    holders: dict[str, set[str]] = {}
    for name, workload in WORKLOADS.items():
        for env in container_of(workload)["env"]:
            if "valueFrom" in env:
                holders.setdefault(env["name"], set()).add(name)
    assert holders["JWT_SECRET"] == holders["API_KEYS"] == {"searchsvc"}
    assert holders["BROKER_URL"] == {"watcher", "worker"}
    assert all("model-service" not in names for names in holders.values())
    assert KEYS.keys() <= holders.keys()


@of_each
def test_a_service_is_content_with_what_it_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {**_told(name), "HOST": "0.0.0.0", "PORT": PORTS[TARGET[name]], "JWT_SECRET": "0123456789abcdef" * 4}
    for variable, value in told.items():
        monkeypatch.setenv(variable, value)
    read_settings = SETTINGS[TARGET[name]]()
    assert cast("Any", read_settings).shutdown_grace_s == float(GIVEN["SHUTDOWN_GRACE_S"])


def test_the_example_s_secret_is_refused_as_it_stands() -> None:
    with pytest.raises(ValidationError, match="JWT_SECRET can be guessed"):
        SearchSettings(host="0.0.0.0", jwt_secret=KEYS["JWT_SECRET"])
    assert not any(re.search(r"[0-9a-f]{16}", value) for value in KEYS.values())


def test_every_model_service_that_there_is_is_one_of_the_addresses() -> None:
    model = WORKLOADS["model-service"]
    scaled = of_kind("ScaledObject", EVERYTHING)["model-service"]["spec"]["maxReplicaCount"]
    for given, replicas in ((GIVEN, model["spec"]["replicas"]), (settings(ROOT / "components/keda", "models.env"), scaled)):
        host = model["spec"]["serviceName"]
        assert given["MODEL_URLS"].split(",") == [
            f"http://model-service-{number}.{host}:{PORTS['model_service']}" for number in range(replicas)
        ]
    allowed = next(env["value"] for env in container_of(model)["env"] if env["name"] == "ALLOWED_HOSTS")
    hosts = KnownHosts(listens_on="0.0.0.0", allowed=[allowed])
    assert all(urlsplit(url).hostname in hosts for url in GIVEN["MODEL_URLS"].split(","))
    assert "model-service-0.model-service.example.org" not in hosts


def test_all_model_services_are_of_one_profile_whatever_each_can_fetch() -> None:
    assert GIVEN["MODEL_PROFILE"] != "auto"


# --- the page


def test_the_page_makes_a_rule_of_the_alerts_as_it_says() -> None:
    page = (REPOSITORY / "docs/how-to/run-on-kubernetes.md").read_text()
    found = re.search(r"^    \((printf .*?)\) \| kubectl apply", page, re.MULTILINE | re.DOTALL)
    assert found is not None
    command = re.sub(r"\\\n\s*", " ", found[1])
    made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    rule = yaml.safe_load(made.stdout)
    assert (rule["apiVersion"], rule["kind"]) == ("monitoring.coreos.com/v1", "PrometheusRule")
    assert [alert for group in rule["spec"]["groups"] for alert in group["rules"]] == ALERTS


def test_the_version_of_qdrant_that_the_page_asks_for_is_the_one_that_is_composed() -> None:
    page = (REPOSITORY / "docs/how-to/run-on-kubernetes.md").read_text()
    assert SERVICES["qdrant"]["image"].partition(":v")[2].rpartition(".")[0] in page
