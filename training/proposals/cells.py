"""What is known of each cell of a coarse grid over a picture: its colour, and what `starter`'s image tower sees there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from core.decode import Pixels

Cells = NDArray[np.float32]
"""(rows, columns, channels), centred, with a mean square length of 1: kinds of knowledge weigh the same side by side."""

STRIDE = 16
MAP_SIDE = 224
"""Longer side of the picture under the tower: 14 cells of its map. Twice as many cover things no better and cost 30 ms."""
_MAP = "/lower/lower.14/convs/convs.0/Clip_output_0"
"""The widest activations at stride 16: 576 channels, those that SSD detects from (Sandler et al., arXiv:1801.04381, 6.2)."""
_KEPT_CHANNELS = 16


class Sight(Protocol):
    """One kind of knowledge of a picture."""

    def __call__(self, pixels: Pixels, shape: tuple[int, int]) -> Cells:
        """The picture's cells, `shape` (rows, columns) of them."""
        ...


def colour(pixels: Pixels, shape: tuple[int, int]) -> Cells:
    """CIE Lab, the mean of each cell."""
    small = cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return _levelled(np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), dtype=np.float32))


class StarterMap:
    """The directions in which the tower's map of a picture varies most."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Of the starter's own folder. Raises what onnx and ONNX Runtime raise."""
        description = json.loads((folder / "embedder.json").read_text(encoding="utf-8"))["image"]
        self._mean, self._std = (np.asarray(description[key], dtype=np.float32) for key in ("mean", "std"))
        self._session = _session(folder / description["file"], threads)

    def __call__(self, pixels: Pixels, shape: tuple[int, int]) -> Cells:
        seen = self._session.run(None, {"pixels": self._prepared(pixels)})[0][0].transpose(1, 2, 0)
        lengths = np.linalg.norm(seen, axis=2, keepdims=True)
        varying = _principal(seen / np.maximum(lengths, 1e-6), _KEPT_CHANNELS)
        return _levelled(np.asarray(cv2.resize(varying, shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.float32))

    def _prepared(self, pixels: Pixels) -> NDArray[np.float32]:
        scale = MAP_SIDE / max(pixels.shape[:2]) / (2 * STRIDE)  # the map's sides are even: later blocks halve it
        height, width = (max(1, round(length * scale)) * 2 * STRIDE for length in pixels.shape[:2])
        resized = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)
        return np.ascontiguousarray(((resized / 255 - self._mean) / self._std).transpose(2, 0, 1)[None])


def side_by_side(sights: tuple[Sight, ...], pixels: Pixels, longer: int) -> Cells:
    """All that is known of each cell; `longer` cells along the picture's longer side."""
    scale = longer / max(pixels.shape[:2])
    rows, columns = (max(2, round(length * scale)) for length in pixels.shape[:2])
    return np.concatenate([sight(pixels, (rows, columns)) for sight in sights], axis=2)


def _session(graph: Path, threads: int) -> Any:
    """The tower as far as its map, for pictures of any size."""
    model = onnx.load(str(graph))
    for axis in (0, 2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"side{axis}"
    del model.graph.output[:], model.graph.value_info[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(_MAP, onnx.TensorProto.FLOAT, ["n", "c", "h", "w"]))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _principal(cells: Cells, most: int) -> Cells:
    rows, columns, channels = cells.shape
    flat = cells.reshape(-1, channels)
    flat = flat - flat.mean(axis=0)
    directions = np.linalg.eigh(flat.T @ flat)[1][:, -most:]
    return np.asarray((flat @ directions).reshape(rows, columns, -1), dtype=np.float32)


def _levelled(cells: Cells) -> Cells:
    """A plain picture stays plain: noise of rounding is not blown up."""
    centred = cells - cells.mean(axis=(0, 1))
    return np.asarray(centred / max(float(np.sqrt((centred**2).sum(axis=2).mean())), 1e-3), dtype=np.float32)
