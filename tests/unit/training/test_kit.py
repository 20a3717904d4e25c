"""Each kind of training, for seconds, on pictures of coloured shapes: the loss falls, and what comes out is served."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from aiohttp.test_utils import TestServer
from safetensors.torch import load_file

from core.model_client import ModelClient
from core.schemas import EngineState, SegmentMode
from model_service import registry
from model_service.app import create_app
from model_service.settings import ModelSettings
from tests.checkpoints import COLOURS, SHAPES, synthetic_picture
from tests.unit.model_service.checkpoints import WORDS, tiny_bert, tiny_resnet
from training.__main__ import main
from training.dual_encoder import train_dual_encoder
from training.fewshot import prototype_loss, train_fewshot
from training.metric import train_metric
from training.options import DualEncoderOptions, FewShotOptions, MetricOptions
from training.runs import Epoch, RunExists

REPOSITORY = Path(__file__).resolve().parents[3]
COMMON = {
    "device": "cpu",
    "threads": 1,
    "learning_rate": 3e-3,
    "head_learning_rate": 1e-2,
    "smallest_crop": 0.9,
    "freeze_norms": True,
}


@pytest.fixture(autouse=True)
def torch_as_it_was() -> Iterator[None]:
    """A training makes torch deterministic and takes its threads, for the whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per colour, 20 pictures each, and one file that is no picture."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour in COLOURS:
        (folder / colour).mkdir()
        for n in range(20):
            shape = SHAPES[n % len(SHAPES)]
            (folder / colour / f"{n:02}-{shape}.jpg").write_bytes(synthetic_picture(colour, shape, 48, seed=n))
    (folder / "red" / "notes.jpg").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def captions(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("captions") / "captions.jsonl"
    named = [(path.relative_to(pictures), path.parent.name) for path in sorted(pictures.rglob("*.jpg"))]
    lines = [{"file": str(path), "captions": [f"a photo of the {colour} one", f"{colour}"]} for path, colour in named]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODELS_DIR with start weights of 32 pixels."""
    folder = tmp_path_factory.mktemp("towers")
    tiny_resnet(folder / "tiny-resnet")
    tiny_bert(folder / "tiny-bert", ("one", *COLOURS, *WORDS))
    return folder


@pytest.fixture
def places(towers: Path, tmp_path: Path) -> dict[str, object]:
    return {"tower": str(towers / "tiny-resnet"), "models_dir": tmp_path / "models", "runs_dir": tmp_path / "runs"}


@pytest.fixture
def metric(pictures: Path, places: dict[str, object]) -> Callable[..., MetricOptions]:
    def make(**changed: object) -> MetricOptions:
        given = {"pictures": pictures, "name": "colours", "epochs": 4, "dim": 8, "labels_per_batch": 6, **COMMON, **places}
        return MetricOptions.model_validate(given | changed)

    return make


def losses(epochs: Sequence[Epoch]) -> list[float]:
    return [epoch.loss for epoch in epochs if epoch.loss is not None]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.parent.name}/{name}": t for path in sorted(folder.rglob("*.safetensors")) for name, t in load_file(path).items()
    }


async def serve(models_dir: Path, profile: str, texts: list[str], picture: bytes) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Words' vectors, and the picture's by the name of its model, from a model service with that profile."""
    settings = ModelSettings(models_dir=models_dir, model_profile=profile, segmenter="none", model_threads=1)
    app = create_app(settings, load=registry.load)
    async with TestServer(app) as server, ModelClient(str(server.make_url("/"))) as client, asyncio.timeout(60):
        while (info := await client.info()).state is not EngineState.READY:
            assert info.state is not EngineState.NO_MODEL, info.notice
            await asyncio.sleep(0.05)
        words = await client.embed_texts(texts)
        analysis = await client.analyse(picture, segments=SegmentMode.NONE)
    names = {space.collection: space.model_name for space in info.spaces}
    return np.array(words.vectors), {names[each.collection]: np.array(each.vector) for each in analysis.embeddings}


async def test_metric_learning_brings_colours_together_and_is_served(metric: Callable[..., MetricOptions]) -> None:
    options = metric(epochs=6)

    trained = train_metric(options)

    assert losses(trained.epochs)[-1] < losses(trained.epochs)[0]
    assert trained.after.mean_average_precision.mean > trained.before.mean_average_precision.mean
    assert trained.epochs[0].loss is None
    red = synthetic_picture("red", "circle", 48, seed=99)
    _, vectors = await serve(options.models_dir, "colours", ["red"], red)
    assert vectors["starter"].shape == (512,)
    assert vectors["colours"].shape == (8,)
    assert np.linalg.norm(vectors["colours"]) == pytest.approx(1, abs=1e-4)
    _, of_red = await serve(options.models_dir, "colours", ["red"], synthetic_picture("red", "square", 48, seed=98))
    _, of_blue = await serve(options.models_dir, "colours", ["red"], synthetic_picture("blue", "circle", 48, seed=97))
    assert vectors["colours"] @ of_red["colours"] > vectors["colours"] @ of_blue["colours"]


async def test_prototypical_networks_tell_unseen_pictures_apart_better_and_are_served(
    pictures: Path, places: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    few = {"ways": 4, "shots": 1, "queries": 2, "episodes": 10, "measured_episodes": 40, "hold_out": "pictures", "epochs": 4}
    options = FewShotOptions.model_validate({"pictures": pictures, "name": "few", **few, **COMMON, **places})

    trained = train_fewshot(options)

    assert "left out: 1 files that cannot be read" in capsys.readouterr().out
    assert losses(trained.epochs)[-1] < losses(trained.epochs)[0]
    assert trained.after.accuracy.low > trained.before.accuracy.high
    _, vectors = await serve(options.models_dir, "few", ["red"], synthetic_picture("red", "circle", 48, seed=99))
    assert vectors["few"].shape == (16,)


@pytest.mark.parametrize("loss", ["clip", "siglip"])
async def test_a_dual_encoder_finds_colours_by_their_names_and_is_served(
    loss: str, pictures: Path, captions: Path, towers: Path, places: dict[str, object]
) -> None:
    words = {"text_tower": str(towers / "tiny-bert"), "dim": 16, "batch": 24, "loss": loss, "epochs": 20, "patience": 0}
    given = {"pictures": pictures, "captions": captions, "name": "named", **COMMON, **places, **words}
    options = DualEncoderOptions.model_validate(given)

    trained = train_dual_encoder(options)

    assert losses(trained.epochs)[-1] < losses(trained.epochs)[0]
    colours = list(COLOURS)
    for colour in ("red", "blue"):
        picture = synthetic_picture(colour, "square", 48, seed=99)
        vectors, of_picture = await serve(
            options.models_dir, "named", [f"a photo of the {name} one" for name in colours], picture
        )
        assert of_picture["named"].shape == (16,)
        assert colours[int((vectors @ of_picture["named"]).argmax())] == colour


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(
    metric: Callable[..., MetricOptions], tmp_path: Path
) -> None:
    made = {}
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        train_metric(metric(name=name, seed=seed, epochs=2))
        made[name] = weights(tmp_path / "models" / name)

    first, same, other = ([t for _, t in sorted(found.items())] for found in made.values())
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_run_that_was_stopped_ends_where_an_unbroken_one_does(metric: Callable[..., MetricOptions], tmp_path: Path) -> None:
    whole = train_metric(metric(name="broken", models_dir=tmp_path / "whole", runs_dir=tmp_path / "whole-runs"))
    train_metric(metric(name="broken", epochs=2))

    resumed = train_metric(metric(name="broken", resume=True))

    expected, found = weights(tmp_path / "whole" / "broken"), weights(tmp_path / "models" / "broken")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert [(e.number, e.loss, e.scores) for e in whole.epochs] == [(e.number, e.loss, e.scores) for e in resumed.epochs]


def test_a_run_that_was_killed_goes_on(metric: Callable[..., MetricOptions], tmp_path: Path) -> None:
    options = metric(epochs=400, patience=0)
    flags = [
        "--pictures",
        options.pictures,
        "--name",
        "colours",
        "--tower",
        options.tower,
        "--epochs",
        400,
        "--patience",
        0,
        "--dim",
        8,
    ]
    flags += ["--models-dir", options.models_dir, "--runs-dir", options.runs_dir, "--labels-per-batch", 6, "--threads", 1]
    command = [sys.executable, "-m", "training", "train", "metric", *map(str, flags)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=os.environ) as child:
        deadline = time.monotonic() + 60
        last = options.runs_dir / "colours" / "last.pt"
        while not last.exists():
            assert child.poll() is None, child.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
        child.communicate()
    reached = len((options.runs_dir / "colours" / "log.jsonl").read_text().splitlines()) - 1

    assert not (options.models_dir / "colours").exists()
    assert main([*command[3:], "--resume", "--epochs", str(reached + 1), "--overwrite"]) == 0
    numbers = [json.loads(line)["number"] for line in (options.runs_dir / "colours" / "log.jsonl").read_text().splitlines()]
    assert numbers == list(range(reached + 2))
    assert (options.models_dir / "colours" / "profile.toml").exists()


def test_patience_ends_a_run_that_no_longer_improves(metric: Callable[..., MetricOptions]) -> None:
    trained = train_metric(metric(epochs=50, patience=2, learning_rate=1e-9, head_learning_rate=1e-9))

    assert len(trained.epochs) == 3


def test_nothing_that_exists_is_overwritten_unasked(metric: Callable[..., MetricOptions], tmp_path: Path) -> None:
    train_metric(metric(epochs=1))

    with pytest.raises(RunExists, match="--resume"):
        train_metric(metric(epochs=1))
    with pytest.raises(RunExists, match="other options"):
        train_metric(metric(epochs=1, margin=0.3, resume=True))
    train_metric(metric(epochs=1, overwrite=True, keep_epochs=True))
    assert (tmp_path / "runs" / "colours" / "epoch-001.pt").exists()


def test_the_card_of_a_model_says_what_it_learned_from_and_nothing_about_this_machine(
    metric: Callable[..., MetricOptions],
) -> None:
    options = metric(epochs=1)
    train_metric(options)

    card = (options.models_dir / "colours" / "README.md").read_text()

    assert "R@1/5/10 on the test pictures" in card
    assert "margin 0.2" in card
    assert str(options.models_dir.parent) not in card


def test_the_command_line_says_what_does_not_serve(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    wrong = {
        ("train", "metric", "--pictures", str(tmp_path / "gone"), "--name", "x"): "is no folder",
        ("train", "metric", "--pictures", str(tmp_path / "empty"), "--name", "x"): "one folder per label",
        ("train", "fewshot", "--pictures", str(tmp_path), "--name", "Not A Name"): "--name",
        ("train", "metric", "--name", "x"): "--pictures: Field required",
        ("train",): "name a command",
        (): "name a command",
    }
    for arguments, said in wrong.items():
        assert main(list(arguments)) == 2
        assert said in capsys.readouterr().err


def test_the_prototype_loss_is_low_where_ways_lie_apart_and_high_where_they_do_not() -> None:
    apart = torch.eye(3).repeat_interleave(4, 0)
    mixed = torch.eye(3).repeat(4, 1)

    assert prototype_loss(apart, ways=3, shots=2) < 0.01
    assert prototype_loss(mixed, ways=3, shots=2) > 1
