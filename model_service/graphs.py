"""Exported graphs, loaded: arrays in by name, arrays out in order. As many threads at a time as they were loaded for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from model_service.runtimes import Precision, Runtime

FILE_NAMES = {Runtime.OPENVINO: "graph.xml", Runtime.ONNX: "graph.onnx"}

Array = NDArray[Any]


class Graph(Protocol):
    """A compiled graph."""

    def __call__(self, inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        """Its outputs in their order. Inputs that it doesn't know are left out. Raises what the runtime raises."""
        ...


def load(folder: Path, runtime: Runtime, precision: Precision, *, threads: int, passes: int = 1) -> Graph:
    """The graph of an export's folder; `passes` at once share the threads. Raises what the runtime raises for a damaged file."""
    path = folder / FILE_NAMES[runtime]
    if runtime is Runtime.OPENVINO:
        return load_openvino(path, precision, threads=threads, passes=passes)
    return load_onnx(path, threads=max(1, threads // passes))


def load_openvino(model: Any, precision: Precision, *, threads: int, passes: int = 1) -> Graph:
    """Of a path, or of a model in memory. What is not int8 in an int8 graph is float32, or bfloat16 where that was asked for."""
    openvino = imported_openvino()
    compiled = openvino.Core().compile_model(
        model,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if precision is Precision.BF16 else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": passes,
            "ENABLE_CPU_PINNING": False,  # the threads of two graphs would be pinned to the same cores
        },
    )
    requests: SimpleQueue[Any] = SimpleQueue()
    for _ in range(passes):
        requests.put(compiled.create_infer_request())
    return _OpenvinoGraph(compiled.outputs, requests, frozenset(name for one in compiled.inputs for name in one.get_names()))


def load_onnx(path: Path, *, threads: int) -> Graph:
    """`threads` are those of one pass; each thread that calls brings its own."""
    import onnxruntime  # noqa: PLC0415 - a runtime is imported when it is used

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors only: it warns of every initializer that it folds
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the cores of others
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return _OnnxGraph(session, frozenset(one.name for one in session.get_inputs()))


def imported_openvino() -> Any:
    """OpenVINO, whose import would otherwise report to its maker and leave a file in the home directory."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # so an import of it fails, which it allows for
    import openvino  # noqa: PLC0415 - a runtime is imported when it is used

    return openvino


@dataclass(frozen=True, slots=True)
class _OpenvinoGraph:
    outputs: Any
    requests: SimpleQueue[Any]
    names: frozenset[str]

    def __call__(self, inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        request = self.requests.get()
        try:
            found = request.infer({name: array for name, array in inputs.items() if name in self.names})
            return [np.asarray(found[output], dtype=np.float32) for output in self.outputs]
        finally:
            self.requests.put(request)


@dataclass(frozen=True, slots=True)
class _OnnxGraph:
    session: Any
    names: frozenset[str]

    def __call__(self, inputs: Mapping[str, Array]) -> list[NDArray[np.float32]]:
        found = self.session.run(None, {name: array for name, array in inputs.items() if name in self.names})
        return [np.asarray(output, dtype=np.float32) for output in found]
