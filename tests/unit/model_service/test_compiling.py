"""Compiled by torch's own compiler for the CPU, as a GPU's would be; tests that compile need a C++ compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import structlog
import torch

from model_service import compiling, encoders
from model_service.compiling import Compiling, is_compiled
from model_service.loading import Loader
from model_service.parts import Tensor
from model_service.runtimes import Machine, Runtime, chosen
from model_service.settings import ModelSettings
from model_service.weights import Checkpoint
from tests.unit.model_service.checkpoints import tiny_clip

needs_a_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch compiles for the CPU with g++")

GPU = Machine(frozenset({Runtime.TORCH}), cuda=True, bf16=True, quantiser=False)
CPU = Machine(frozenset({Runtime.TORCH}), cuda=False, bf16=False, quantiser=False)


@pytest.fixture(scope="module")
def compiled_before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the compiler keeps; its own headers alone take it long."""
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def caches_of_these_tests(compiled_before: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(compiled_before / "inductor"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(compiled_before / "triton"))
    yield
    torch._dynamo.reset()


def passed(module: torch.nn.Module, count: int) -> Tensor:
    with torch.inference_mode():
        return np.asarray(module(torch.linspace(-1, 1, 8).repeat(count, 1)).numpy())


def small() -> torch.nn.Module:
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.LayerNorm(16))


def paid(monkeypatch: pytest.MonkeyPatch, *, plain_s: float, compiled_s: float) -> None:
    monkeypatch.setattr(compiling, "_seconds", lambda module, _passed, _n: compiled_s if is_compiled(module) else plain_s)


@needs_a_compiler
@pytest.mark.parametrize(("compiled_s", "kept"), [(0.5, True), (0.99, False), (2.0, False)])
def test_what_is_compiled_is_used_when_it_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled_s: float, kept: bool
) -> None:
    paid(monkeypatch, plain_s=1.0, compiled_s=compiled_s)
    plain = small()
    with structlog.testing.capture_logs() as log:
        made = Compiling(tmp_path, largest=4).where_it_pays(plain, passed, name="small")
    assert is_compiled(made) is kept
    assert [line["event"] for line in log] == ["model_compiled" if kept else "model_not_compiled"]
    for count in (1, 2, 3, 4, 7):  # of any number, in any order, without being compiled once more
        np.testing.assert_allclose(passed(made, count), passed(plain, count), atol=1e-5)


@needs_a_compiler
def test_what_answers_otherwise_than_before_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paid(monkeypatch, plain_s=1.0, compiled_s=0.5)

    def other_when_compiled(module: torch.nn.Module, count: int) -> Tensor:
        return -passed(module, count) if is_compiled(module) else passed(module, count)

    plain = small()
    assert Compiling(tmp_path, largest=2).where_it_pays(plain, other_when_compiled, name="small") is plain


def test_without_a_compiler_the_plain_one_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_to_compile_with(_module: torch.nn.Module, *, dynamic: bool) -> torch.nn.Module:
        assert dynamic

        def fails(*_arguments: object) -> None:
            raise RuntimeError("Cannot find a working triton installation\nmore")

        made = torch.nn.Module()
        made.forward = fails
        return made

    monkeypatch.setattr(torch, "compile", nothing_to_compile_with)
    plain = small()
    with structlog.testing.capture_logs() as log:
        assert Compiling(tmp_path, largest=2).where_it_pays(plain, passed, name="small") is plain
    assert log[0]["error"] == "RuntimeError: Cannot find a working triton installation"


@needs_a_compiler
@pytest.mark.timeout(1000)  # g++ compiles some thirty files, at times beside much else
def test_towers_are_compiled_and_answer_as_before(tmp_path: Path) -> None:
    """By a process that has loaded no other runtime, as the model service is one that computes in torch."""
    asked = [sys.executable, "-m", "tests.unit.model_service.test_compiling", str(tmp_path)]
    ended = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=960)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "compiled and the same"


def compare_towers(folder: Path) -> None:
    compiling._seconds = lambda module, _passed, _n: 0.5 if is_compiled(module) else 1.0
    checkpoint = Checkpoint(tiny_clip(folder / "clip"), "tiny/clip", "0" * 16)
    plain = encoders.load_dual_encoder(checkpoint, device="cpu", model_name="CLIP")
    settings = ModelSettings(models_dir=folder, model_runtime="torch", model_compile="on", embed_batch=4)
    made = Loader.of(settings).two_towers(checkpoint, checkpoint, None, name="CLIP")
    assert made.card.runtime == f"{plain.card.runtime}, compiled"
    grey = plain.prepare(np.full((40, 60, 3), 99, np.uint8))
    np.testing.assert_allclose(made.embed([grey] * 3), plain.embed([grey] * 3), atol=1e-4)
    texts = ["cat", "the red dog on the grass"]
    np.testing.assert_allclose(made.embed_texts(texts), plain.embed_texts(texts), atol=1e-4)
    assert made.space == plain.space
    print("compiled and the same")


@pytest.mark.parametrize(
    ("asked", "machine", "compiles"),
    [("auto", GPU, True), ("auto", CPU, False), ("on", CPU, True), ("off", GPU, False)],
)
def test_models_are_compiled_on_a_gpu_or_where_it_is_asked(
    asked: Literal["auto", "on", "off"], machine: Machine, compiles: bool
) -> None:
    settings = ModelSettings(model_compile=asked)
    assert chosen(settings, machine).compiles is compiles


if __name__ == "__main__":
    compare_towers(Path(sys.argv[1]))
