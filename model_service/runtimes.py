"""Which runtime, device and precisions this machine is to use: what is asked for, else what is best of what is here.

`auto` is torch on CUDA (bfloat16, or float16 on cards that lack it), and on a CPU OpenVINO, else ONNX Runtime, else torch.
Precisions are tried in order; the first whose vectors agree with float32 is used (`exporting.agreement`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from core.threads import usable_cores
from model_service.settings import ModelSettings

_CPU_FLAGS = Path("/proc/cpuinfo")
_CUDA_DEVICES = ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg")


class Runtime(StrEnum):
    OPENVINO = "openvino"
    ONNX = "onnx"
    TORCH = "torch"


class Precision(StrEnum):
    INT8 = "int8"
    BF16 = "bf16"
    FP32 = "fp32"


PACKAGES = {Runtime.OPENVINO: "openvino", Runtime.ONNX: "onnxruntime", Runtime.TORCH: "torch"}


class UnusableRuntime(Exception):
    """What was asked for is not on this machine; `str` says what to do."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is to choose from."""

    installed: frozenset[Runtime]
    cuda: bool
    bf16: bool
    """Whether the CPU multiplies bfloat16 by itself; emulated, it is slower than float32."""
    quantiser: bool
    """Whether int8 exports can be made here."""

    @classmethod
    def found(cls) -> Machine:
        return cls(
            installed=frozenset(runtime for runtime, package in PACKAGES.items() if find_spec(package) is not None),
            cuda=_has_cuda(),
            bf16=_has_bf16(),
            quantiser=find_spec("nncf") is not None and find_spec("torch") is not None,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """`precisions` in the order in which they are to be tried; the last is FP32."""

    runtime: Runtime
    device: str
    threads: int
    precisions: tuple[Precision, ...]
    compiles: bool = False
    """Whether torch, where it is used, compiles what it then computes faster."""

    @property
    def exported(self) -> bool:
        return self.runtime is not Runtime.TORCH

    @property
    def in_torch(self) -> Precision:
        """What torch computes in, where it is chosen or stands in: it has no int8."""
        return next(one for one in self.precisions if one is not Precision.INT8)

    @property
    def versioned(self) -> str:
        return f"{PACKAGES[self.runtime]} {version(PACKAGES[self.runtime]).partition('+')[0]}"


def chosen(settings: ModelSettings, machine: Machine | None = None) -> Choice:
    """Raises UnusableRuntime."""
    machine = machine or Machine.found()
    wanted_device = settings.model_device
    device = wanted_device if wanted_device != "auto" else "cuda" if machine.cuda and _may_use_cuda(settings) else "cpu"
    runtime = _runtime(settings, machine, device)
    threads = settings.model_threads or usable_cores()
    compiles = settings.model_compile == "on" or (settings.model_compile == "auto" and device.startswith("cuda"))
    return Choice(runtime, device, threads, _precisions(settings.model_precision, runtime, device, machine), compiles)


def _may_use_cuda(settings: ModelSettings) -> bool:
    return settings.model_runtime in {"auto", Runtime.TORCH}


def _runtime(settings: ModelSettings, machine: Machine, device: str) -> Runtime:
    """Raises UnusableRuntime."""
    if settings.model_runtime == "auto":
        fit = (Runtime.OPENVINO, Runtime.ONNX, Runtime.TORCH) if device == "cpu" else (Runtime.TORCH,)
        found = next((runtime for runtime in fit if runtime in machine.installed), None)
        if found is None:
            raise UnusableRuntime(f"no runtime for {device} is installed: pip install 'imagesearch[model]'")
        return found
    runtime = Runtime(settings.model_runtime)
    if runtime not in machine.installed:
        raise UnusableRuntime(f"MODEL_RUNTIME is {runtime}, which is not installed: pip install {PACKAGES[runtime]}, or set auto")
    if runtime is not Runtime.TORCH and device != "cpu":
        raise UnusableRuntime(f"{runtime} is used on the CPU alone here: set MODEL_DEVICE to cpu, or MODEL_RUNTIME to torch")
    return runtime


def _precisions(wanted: str, runtime: Runtime, device: str, machine: Machine) -> tuple[Precision, ...]:
    """From the one asked for, or the fastest, down to FP32, without those that this runtime does not gain by."""
    usable: dict[Precision, Callable[[], bool]] = {
        Precision.INT8: lambda: runtime is not Runtime.TORCH,
        Precision.BF16: lambda: device.startswith("cuda") or (machine.bf16 and runtime is not Runtime.ONNX and device == "cpu"),
        Precision.FP32: lambda: True,
    }
    order = list(Precision)
    start = 0 if wanted == "auto" else order.index(Precision(wanted))
    return tuple(precision for precision in order[start:] if usable[precision]())


def _has_cuda() -> bool:
    """Without a driver's device file, torch, which takes seconds to import, need not be asked."""
    if find_spec("torch") is None or (sys.platform == "linux" and not any(Path(path).exists() for path in _CUDA_DEVICES)):
        return False
    import torch  # noqa: PLC0415 - see above

    return torch.cuda.is_available()


def _has_bf16() -> bool:
    try:
        flags = _CPU_FLAGS.read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
