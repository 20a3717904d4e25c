"""A lean installation: the starter answers on ONNX Runtime alone, and everything else that is asked for says what to install."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from structlog.testing import capture_logs

from core.errors import NoModel
from core.model_client import ModelClient
from core.schemas import EngineState, ModelsInfo
from model_service import registry
from model_service.app import create_app
from model_service.extras import HOW_TO_INSTALL
from model_service.settings import ModelSettings
from tests.unit.model_service.checkpoints import tiny_onnx

REPOSITORY = Path(__file__).resolve().parents[3]
LEFT_OUT = {"torch", "torchvision", "transformers", "ultralytics", "cv2", "scipy", "sklearn", "matplotlib"}
SLOW_TO_IMPORT = {"qdrant_client", "grpc", "httpx", "huggingface_hub"}
"""In every installation, and used by few."""

_ANSWERING = """
import asyncio, io, json, sys
from PIL import Image
from core.metrics import service_registry
from core.schemas import EngineState, Priority, SegmentMode
from model_service.engine import Engine
from model_service.metrics import InferenceMetrics
from model_service.registry import load
from model_service.settings import ModelSettings

async def answer():
    async with Engine(ModelSettings(), load=load, metrics=InferenceMetrics(service_registry())) as engine:
        while (await engine.info()).state is EngineState.LOADING:
            await asyncio.sleep(0.02)
        encoded = io.BytesIO()
        Image.new("RGB", (80, 60), "red").save(encoded, "JPEG")
        words = await engine.embed_texts(["tennis"])
        picture = await engine.analyse(encoded.getvalue(), segments=SegmentMode.NONE, priority=Priority.QUERY)
        return len(words.vectors[0]), len(picture.embeddings[0].vector)

print(json.dumps([asyncio.run(answer()), sorted(sys.modules)]))
"""


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra `model` were not installed."""
    for package in LEFT_OUT:
        monkeypatch.setitem(sys.modules, package, None)  # so neither `import` nor `find_spec` finds it
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # whoever asks the hub all the same is refused


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., ModelSettings]:
    return lambda **changed: ModelSettings.model_validate({"models_dir": tmp_path / "models", "model_threads": 1, **changed})


def _imported_by(code: str, environment: dict[str, str]) -> tuple[object, set[str]]:
    """What a fresh process printed first, and the packages that it had imported in the end."""
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    printed, modules = json.loads(child.stdout.splitlines()[-1])
    return printed, {name.partition(".")[0] for name in modules}


def test_the_starter_answers_words_and_a_picture_without_importing_what_a_lean_installation_lacks(tmp_path: Path) -> None:
    environment = {"MODEL_PROFILE": "starter", "MODELS_DIR": str(tmp_path), "MODEL_THREADS": "1"}
    lengths, packages = _imported_by(_ANSWERING, environment)
    assert lengths == [512, 512]
    assert "onnxruntime" in packages
    assert packages & (LEFT_OUT | SLOW_TO_IMPORT) == set()


def test_watcher_and_search_import_neither_tensors_nor_the_client_of_a_server_that_is_not_used() -> None:
    _, packages = _imported_by("import json, sys, standalone.compose; print(json.dumps([None, sorted(sys.modules)]))", {})
    assert {"aiohttp", "qdrant_edge"} <= packages
    assert packages & (LEFT_OUT | SLOW_TO_IMPORT | {"onnxruntime", "tokenizers"}) == set()


def test_the_model_process_is_started_before_the_services_are_imported() -> None:
    _, packages = _imported_by("import json, sys, standalone.__main__; print(json.dumps([None, sorted(sys.modules)]))", {})
    assert "pydantic_settings" in packages
    assert packages & {"aiohttp", "numpy", "PIL", "qdrant_edge"} == set()


@pytest.mark.usefixtures("lean")
def test_clip_says_what_to_install_and_asks_no_hub(settings: Callable[..., ModelSettings]) -> None:
    with capture_logs() as told, pytest.raises(NoModel) as error:
        registry.load(settings(model_profile="clip"))
    assert "openai/clip-vit-base-patch32 cannot be loaded: it needs torch and transformers" in str(error.value)
    assert HOW_TO_INSTALL in str(error.value)
    assert [event for event in told if "exc_info" in event] == []


@pytest.mark.usefixtures("lean")
def test_auto_is_the_starter_and_says_what_would_be_more(settings: Callable[..., ModelSettings]) -> None:
    parts = registry.load(settings(model_profile="auto"))
    assert parts.profile == "starter"
    assert parts.notice is not None
    assert f"needs torch and transformers, which are not installed: {HOW_TO_INSTALL}" in parts.notice


@pytest.mark.usefixtures("lean")
def test_a_segmenter_at_hand_and_a_trained_image_model_say_what_to_install(settings: Callable[..., ModelSettings]) -> None:
    models = settings().models_dir
    starter = tiny_onnx(models.parent / "starter")
    (models / "shoes").mkdir(parents=True)
    (models / "shoes" / "profile.toml").write_text('[embedder]\nmodel = "starter"\n[image_embedder]\nmodel = "shoes-images"\n')
    (models / "yolov8n-seg.pt").write_bytes(b"weights")
    parts = registry.load(settings(model_profile="shoes", segmenter="yolov8n-seg.pt"), starter=starter)
    assert (len(parts.image_towers), parts.segmenter) == (1, None)
    assert parts.notice is not None
    assert "shoes-images cannot be loaded: it needs torch and transformers" in parts.notice
    assert "not cut into segments by yolov8n-seg.pt: it needs torch and ultralytics" in parts.notice
    assert parts.notice.count(HOW_TO_INSTALL) == 2


@pytest.mark.usefixtures("lean")
async def test_the_state_of_the_service_says_what_to_install(settings: Callable[..., ModelSettings]) -> None:
    app = create_app(settings(model_profile="clip"), load=registry.load)
    async with TestServer(app) as server, ModelClient(str(server.make_url("/"))) as client:
        info = await _known(client)
    assert info.state is EngineState.NO_MODEL
    assert info.notice is not None
    assert HOW_TO_INSTALL in info.notice


async def _known(client: ModelClient) -> ModelsInfo:
    async with asyncio.timeout(10):
        while (info := await client.info()).state is EngineState.LOADING:
            await asyncio.sleep(0.02)
    return info


@pytest.mark.parametrize("command", [["train", "metric", "--pictures", ".", "--name", "x"], ["evaluate", "--labelled", "."]])
def test_training_says_what_to_install(command: list[str]) -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({sorted(LEFT_OUT)})); import training.__main__ as kit; sys.exit(kit.main({command}))"
    child = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert child.returncode == 2
    assert "is not installed: pip install '.[training]', or make build" in child.stderr
    assert "Traceback" not in child.stderr
