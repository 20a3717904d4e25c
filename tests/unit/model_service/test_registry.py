from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from core.errors import NoModel
from core.schemas import SegmentMode
from model_service import registry
from model_service.settings import ModelSettings
from model_service.weights import NotFetched, Weights
from tests.ports import free_port
from tests.unit.model_service.checkpoints import projection, tiny_bert, tiny_clip, tiny_onnx, tiny_resnet

CLIP, RESNET = "openai/clip-vit-base-patch32", "microsoft/resnet-50"
COMMIT = "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"


@pytest.fixture(autouse=True)
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a hub at a closed port."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def starter(tmp_path: Path) -> Path:
    return tiny_onnx(tmp_path / "shipped" / "starter")


@pytest.fixture
def no_starter(tmp_path: Path) -> Path:
    return tmp_path / "absent"


@pytest.fixture
def settings(models: Path) -> Callable[..., ModelSettings]:
    def make(**changed: object) -> ModelSettings:
        return ModelSettings(**{"models_dir": models, "hub_timeout_s": 0.5, "model_threads": 1, "segmenter": "none", **changed})  # type: ignore[arg-type]

    return make


def marked(folder: Path, mark: str) -> None:
    """The least that counts as a checkpoint folder; `mark` tells it from others."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_text(mark)


def test_weights_are_looked_for_nearest_first(models: Path, hub_cache: Path, tmp_path: Path) -> None:
    cached = f"models--openai--clip-vit-base-patch32/snapshots/{COMMIT}"
    places = [
        models / "openai" / "clip-vit-base-patch32",
        models / "clip-vit-base-patch32",
        models / cached,
        models / "hub" / cached,
        hub_cache / cached,
    ]
    for n, place in enumerate(places):
        marked(place, str(n))

    for place in places:
        assert Weights(models, hub_timeout_s=0.5).folder(CLIP).path == place
        shutil.rmtree(place)
    with pytest.raises(NotFetched, match="cannot be reached"):
        Weights(models, hub_timeout_s=0.5).folder(CLIP)


def test_an_explicit_folder_is_taken_and_named_by_its_last_part(models: Path, tmp_path: Path) -> None:
    marked(tmp_path / "elsewhere" / "My CLIP_v2.1", "mine")

    found = Weights(models, hub_timeout_s=0.5).folder(str(tmp_path / "elsewhere" / "My CLIP_v2.1"))

    assert found.name == "My CLIP_v2.1"
    assert found.collection == f"my-clip-v2.1-{found.revision[:8]}"


def test_a_snapshots_revision_is_its_commit_and_any_other_follows_the_bytes(models: Path) -> None:
    marked(models / "models--openai--clip-vit-base-patch32" / "snapshots" / COMMIT, "hub")
    marked(models / "resnet-50", "mine")
    weights = Weights(models, hub_timeout_s=0.5)

    before = weights.folder(RESNET).revision
    (models / "resnet-50" / "model.safetensors").write_text("fine-tuned")

    assert weights.folder(CLIP).collection == "clip-vit-base-patch32-3d74acf9"
    assert len(before) == 16
    assert weights.folder(RESNET).revision != before


def test_a_checkpoint_that_lacks_a_shard_is_passed_over(models: Path) -> None:
    marked(models / "clip-vit-base-patch32", "first shard")
    index = '{"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}'
    (models / "clip-vit-base-patch32" / "model.safetensors.index.json").write_text(index)

    with pytest.raises(NotFetched):
        Weights(models, hub_timeout_s=0.5).folder(CLIP)


def test_the_segmenter_asked_for_comes_before_any_that_stands_in(models: Path) -> None:
    names = ["yoloe-26s-seg-pf.pt", "yoloe-11s-seg-pf.pt", "a-seg.pt", "b-seg.pt"]
    for name in names:
        (models / name).write_text(name)

    for name in names:
        assert Weights(models, hub_timeout_s=0.5).segmenter("yoloe-26s-seg-pf.pt").name == name
        (models / name).unlink()
    with pytest.raises(NotFetched):
        Weights(models, hub_timeout_s=0.5, may_fetch=False).segmenter("yoloe-26s-seg-pf.pt")


class _Assets(BaseHTTPRequestHandler):
    """Weights, a piece at a time; a second caller finds a first one half way."""

    pieces = tuple(bytes([n]) * 100_000 for n in range(10))
    asked = threading.Semaphore(0)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(sum(map(len, self.pieces))))
        self.end_headers()
        for n, piece in enumerate(self.pieces):
            self.wfile.write(piece)
            if n == 4:
                self.asked.release()
                time.sleep(0.5)

    def log_message(self, *_: object) -> None:
        return None


def test_two_who_share_a_folder_may_fetch_the_same_at_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Assets) as server, ThreadPoolExecutor(3) as threads:
        threads.submit(server.serve_forever)
        try:
            monkeypatch.setattr("model_service.weights.ULTRALYTICS_ASSETS", f"http://127.0.0.1:{server.server_port}")
            weights = Weights(models, hub_timeout_s=5)
            first = threads.submit(weights.segmenter, "yoloe-26s-seg-pf.pt")
            assert _Assets.asked.acquire(timeout=10)
            second = threads.submit(weights.segmenter, "yoloe-26s-seg-pf.pt")
            assert first.result(30) == second.result(30)
        finally:
            server.shutdown()
    (fetched,) = models.iterdir()
    assert fetched.read_bytes() == b"".join(_Assets.pieces)


@pytest.mark.parametrize("profile", ["clip", "auto"])
def test_without_weights_and_hub_it_fails_soon_and_says_what_to_do(
    profile: str, settings: Callable[..., ModelSettings], no_starter: Path
) -> None:
    started = time.monotonic()

    with pytest.raises(NoModel) as error:
        registry.load(settings(model_profile=profile, segmenter="yoloe-26s-seg-pf.pt"), starter=no_starter)

    assert time.monotonic() - started < 0.5 + 2
    for part in (CLIP, "MODELS_DIR/clip-vit-base-patch32", "MODEL_PROFILE", "cannot be reached", "looked at again"):
        assert part in str(error.value)
    assert str(settings().models_dir) not in str(error.value)


def test_a_hub_that_accepts_and_never_answers_is_given_up_in_time(
    settings: Callable[..., ModelSettings], no_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(NoModel, match="cannot be reached"):
            registry.load(settings(model_profile="clip"), starter=no_starter)

    assert time.monotonic() - started < 0.5 + 2


def test_offline_by_setting_says_so(
    settings: Callable[..., ModelSettings], no_starter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(NoModel, match="HF_HUB_OFFLINE"):
        registry.load(settings(), starter=no_starter)


def test_clip_loads_both_spaces_under_the_names_that_users_know(settings: Callable[..., ModelSettings], models: Path) -> None:
    tiny_clip(models / "openai" / "clip-vit-base-patch32")
    tiny_resnet(models / "resnet-50")

    parts = registry.load(settings(model_profile="auto"))

    assert parts.profile == "clip"
    assert [(tower.space.model_name, tower.space.text) for tower in parts.image_towers] == [("CLIP", True), ("ResNet", False)]
    assert parts.text_tower.space == parts.image_towers[0].space
    assert [tower.space.collection.rsplit("-", 1)[0] for tower in parts.image_towers] == ["clip-vit-base-patch32", "resnet-50"]
    assert parts.notice is None
    assert parts.text_tower.embed_texts(["a red dog"]).shape == (1, 24)


def test_a_missing_image_model_or_segmenter_is_noticed_and_not_fatal(
    settings: Callable[..., ModelSettings], models: Path
) -> None:
    tiny_clip(models / "clip-vit-base-patch32")

    parts = registry.load(settings(model_profile="clip", segmenter="yoloe-26s-seg-pf.pt"))

    assert parts.segmenter is None
    assert len(parts.image_towers) == 1
    assert parts.notice is not None
    assert RESNET in parts.notice
    assert "yoloe-26s-seg-pf.pt" in parts.notice


def test_the_starter_that_ships_embeds_words_and_pictures_without_a_download(settings: Callable[..., ModelSettings]) -> None:
    parts = registry.load(settings(model_profile="starter"))

    (tower,) = parts.image_towers
    assert (parts.profile, tower.space.model_name, parts.notice) == ("starter", "starter", None)
    pictures = tower.embed([tower.prepare(np.full((80, 120, 3), level, dtype=np.uint8)) for level in (0, 255)])
    words = parts.text_tower.embed_texts(["a dog", "a mountain lake"])
    assert pictures.shape == words.shape == (2, tower.space.dim)
    np.testing.assert_allclose(np.linalg.norm(words, axis=1), 1, atol=1e-5)


def test_auto_falls_to_the_starter_loudly_and_clip_never_does(settings: Callable[..., ModelSettings], starter: Path) -> None:
    parts = registry.load(settings(model_profile="auto"), starter=starter)

    assert (parts.profile, parts.text_tower.space.model_name) == ("starter", "starter")
    assert parts.notice is not None
    assert "FALLBACK" in parts.notice
    assert "restart" in parts.notice
    assert "looked at again" not in parts.notice
    assert registry.load(settings(model_profile="starter"), starter=starter).notice is None
    with pytest.raises(NoModel):
        registry.load(settings(model_profile="clip"), starter=starter)


def test_damaged_weights_are_none(settings: Callable[..., ModelSettings], models: Path, no_starter: Path) -> None:
    tiny_clip(models / "clip-vit-base-patch32")
    (models / "clip-vit-base-patch32" / "model.safetensors").write_bytes(b"\0" * 100)

    with pytest.raises(NoModel, match=r"cannot be loaded .*MODELS_DIR/clip-vit-base-patch32"):
        registry.load(settings(), starter=no_starter)


def test_a_folder_of_models_dir_is_a_profile(settings: Callable[..., ModelSettings], models: Path) -> None:
    tiny_clip(models / "mine" / "clip")
    text = '[embedder]\nloader = "transformers"\nmodel = "./clip"\nname = "Mine"\n[image_embedder]\nmodel = "./resnet"\n[segmenter]\nmodel = "none"\n'
    (models / "mine" / "profile.toml").write_text(text)
    tiny_resnet(models / "mine" / "resnet")
    tiny_onnx(models / "graphs")

    mine = registry.load(settings(model_profile="mine"))
    graphs = registry.load(settings(model_profile="graphs"))

    assert (mine.profile, [tower.space.model_name for tower in mine.image_towers]) == ("mine", ["Mine", "resnet"])
    assert graphs.text_tower.space.dim == 3


def test_a_profile_may_borrow_the_starters_words_and_bring_a_tower_of_its_own(
    settings: Callable[..., ModelSettings], models: Path, starter: Path
) -> None:
    projection(tiny_resnet(models / "shoes" / "shoes-images"), 16, 6)
    text = '[embedder]\nmodel = "starter"\n[image_embedder]\nmodel = "shoes-images"\nname = "shoes"\n'
    (models / "shoes" / "profile.toml").write_text(text)

    parts = registry.load(settings(model_profile="shoes"), starter=starter)

    assert parts.profile == "shoes"
    assert [(tower.space.model_name, tower.space.dim, tower.space.text) for tower in parts.image_towers] == [
        ("starter", 3, True),
        ("shoes", 6, False),
    ]


def test_a_profile_may_have_a_checkpoint_for_words_of_its_own(
    settings: Callable[..., ModelSettings], models: Path, no_starter: Path
) -> None:
    projection(tiny_resnet(models / "holiday" / "pictures"), 16, 6)
    projection(tiny_bert(models / "holiday" / "words"), 32, 6)
    text = '[embedder]\nmodel = "pictures"\nname = "Holiday"\n[embedder.text]\nmodel = "words"\npooling = "cls"\n'
    (models / "holiday" / "profile.toml").write_text(text)

    parts = registry.load(settings(model_profile="holiday"), starter=no_starter)

    assert parts.text_tower.embed_texts(["a red dog"]).shape == (1, 6)
    assert parts.image_towers[0].space == parts.text_tower.space
    assert parts.text_tower.space.model_name == "Holiday"


@pytest.mark.parametrize("toml", [None, "[embedder", "[embedder]\nmodle = 'x'"])
def test_a_profile_that_does_not_hold_is_told(settings: Callable[..., ModelSettings], models: Path, toml: str | None) -> None:
    if toml is not None:
        (models / "mine").mkdir()
        (models / "mine" / "profile.toml").write_text(toml)

    with pytest.raises(NoModel, match=r"MODELS_DIR/mine/profile\.toml"):
        registry.load(settings(model_profile="mine"))


def test_the_fingerprint_changes_with_what_makes_vectors_and_segments(
    settings: Callable[..., ModelSettings], starter: Path
) -> None:
    def fingerprint(**changed: object) -> str:
        return registry.load(settings(model_profile="starter", **changed), starter=starter).fingerprint

    first = fingerprint()

    assert fingerprint() == first
    assert fingerprint(max_segments=7) != first
    assert fingerprint(segment_min_score=0.5) != first
    (starter / "embedder.json").write_text((starter / "embedder.json").read_text().replace("0123456789ab", "ab0123456789"))
    assert fingerprint() != first


def test_a_models_dir_with_a_segmenter_alone_segments_beside_the_starter(
    settings: Callable[..., ModelSettings], models: Path, starter: Path, no_starter: Path, shared: Path
) -> None:
    shutil.copy(shared / "models" / "yolov8n-seg.pt", models)
    wanted = settings(segmenter="yoloe-26s-seg-pf.pt")

    parts = registry.load(wanted, starter=starter)

    assert parts.segmenter is not None
    assert parts.segmenter.card.source == "yolov8n-seg.pt"
    assert parts.notice is not None
    assert "yolov8n-seg.pt finds the segments" in parts.notice
    assert parts.segmenter.segment([np.zeros((64, 64, 3), dtype=np.uint8)], SegmentMode.QUICK) == [[]]
    with pytest.raises(NoModel, match="clip-vit-base-patch32"):
        registry.load(wanted, starter=no_starter)
