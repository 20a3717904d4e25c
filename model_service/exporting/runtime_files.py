"""From an ONNX file in float32 to a runtime's own file, in int8 by NNCF's post-training quantisation."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from model_service.graphs import FILE_NAMES, imported_openvino
from model_service.runtimes import Precision, Runtime

Samples = Sequence[Mapping[str, NDArray[Any]]]


def write(
    source: Path,
    folder: Path,
    runtime: Runtime,
    precision: Precision,
    *,
    samples: Samples,
    transformer: bool,
    exact: str | None = None,
    progress: Callable[[int], None],
) -> None:
    """`samples` calibrate int8, and `progress` counts those that were run. Operations whose names `exact` (a pattern) matches stay in float32."""
    target = folder / FILE_NAMES[runtime]
    if runtime is Runtime.OPENVINO:
        openvino = imported_openvino()
        model: Any = openvino.Core().read_model(source)
        if precision is Precision.INT8:
            model = _quantised(model, samples, transformer, exact, progress)
        openvino.save_model(model, target, compress_to_fp16=precision is Precision.BF16)
        return
    if precision is not Precision.INT8:
        for file in source.parent.iterdir():  # beside it lie the weights of models over 2 GB
            shutil.copyfile(file, folder / (target.name if file == source else file.name))
        return
    import onnx  # noqa: PLC0415 - seldom needed

    model = onnx.load(source)
    onnx.save(_quantised(model, samples, transformer, exact, progress), target)


def _quantised(model: Any, samples: Samples, transformer: bool, exact: str | None, progress: Callable[[int], None]) -> Any:
    imported_openvino()  # nncf imports it: without its reports
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own dependencies
        import nncf  # noqa: PLC0415 - takes seconds

        nncf.set_log_level(logging.ERROR)
        run = 0

        def counted(sample: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
            nonlocal run
            run += 1
            progress(run)
            return sample

        return nncf.quantize(
            model,
            nncf.Dataset(samples, counted),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(samples),
            model_type=nncf.ModelType.TRANSFORMER if transformer else None,
            ignored_scope=nncf.IgnoredScope(patterns=[exact], validate=False) if exact else None,
        )
