from __future__ import annotations

import pytest

from model_service.runtimes import Choice, Machine, Precision, Runtime, UnusableRuntime, chosen
from model_service.settings import ModelSettings

EVERYTHING = frozenset(Runtime)


def machine(*installed: Runtime, cuda: bool = False, bf16: bool = True) -> Machine:
    return Machine(installed=frozenset(installed) or EVERYTHING, cuda=cuda, bf16=bf16, quantiser=True)


def choice(on: Machine, *, runtime: str = "auto", precision: str = "auto", device: str = "auto") -> Choice:
    settings = ModelSettings(model_runtime=runtime, model_precision=precision, model_device=device, model_threads=3)  # type: ignore[arg-type]
    return chosen(settings, on)


@pytest.mark.parametrize(
    ("on", "expected", "device", "precisions"),
    [
        (machine(cuda=True), Runtime.TORCH, "cuda", "bf16 fp32"),
        (machine(), Runtime.OPENVINO, "cpu", "int8 bf16 fp32"),
        (machine(bf16=False), Runtime.OPENVINO, "cpu", "int8 fp32"),
        (machine(Runtime.ONNX, Runtime.TORCH), Runtime.ONNX, "cpu", "int8 fp32"),
        (machine(Runtime.TORCH), Runtime.TORCH, "cpu", "bf16 fp32"),
        (machine(Runtime.TORCH, bf16=False), Runtime.TORCH, "cpu", "fp32"),
    ],
)
def test_auto_takes_the_fastest_that_the_machine_has(on: Machine, expected: Runtime, device: str, precisions: str) -> None:
    found = choice(on)

    assert (found.runtime, found.device, " ".join(found.precisions), found.threads) == (expected, device, precisions, 3)


def test_a_precision_that_is_asked_for_is_the_least_exact_that_is_tried() -> None:
    assert choice(machine(), precision="bf16").precisions == (Precision.BF16, Precision.FP32)
    assert choice(machine(), precision="fp32").precisions == (Precision.FP32,)
    assert choice(machine(), runtime="torch", precision="int8").precisions == (Precision.BF16, Precision.FP32)


def test_a_runtime_that_is_asked_for_is_taken_though_there_is_a_gpu() -> None:
    found = choice(machine(cuda=True), runtime="onnx")

    assert (found.runtime, found.device, found.exported) == (Runtime.ONNX, "cpu", True)
    assert choice(machine(), device="mps").runtime is Runtime.TORCH


@pytest.mark.parametrize(
    ("runtime", "device", "told"),
    [("openvino", "auto", "pip install openvino"), ("onnx", "cuda", "MODEL_DEVICE to cpu"), ("auto", "cpu", "imagesearch")],
)
def test_what_is_not_here_is_told_with_what_to_do(runtime: str, device: str, told: str) -> None:
    few = Machine(installed=frozenset({Runtime.ONNX} if runtime == "onnx" else ()), cuda=False, bf16=True, quantiser=False)

    with pytest.raises(UnusableRuntime, match=told):
        choice(few, runtime=runtime, device=device)


def test_settings_take_either_case() -> None:
    assert ModelSettings(model_runtime="OpenVINO", model_precision="INT8").model_runtime == "openvino"  # type: ignore[arg-type]
