"""Instance masks from a checkpoint through `ultralytics`: YOLOE prompt-free, or any closed-set YOLO-seg.

`ultralytics` writes settings to the home directory, reports its use, installs what it misses, replaces `PIL.Image.open` and sets
torch's threads; all of that is switched off before it is imported, or undone after.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from core.decode import Pixels
from core.masks import Mask
from core.schemas import BBox, ModelCard, SegmentMode
from model_service.exports import YoloFacts
from model_service.framing import bounded_aspect
from model_service.graphs import Graph
from model_service.parts import Instance
from model_service.runtimes import Precision
from model_service.weights import Checkpoint

MASK_SIDE = 640
"""Longest side of a mask on the wire (`core.schemas.MaskRle`)."""
INPUT_SIDES = {SegmentMode.QUICK: 320, SegmentMode.STANDARD: 640, SegmentMode.FULL: 960}
SAME_OBJECT_IOU = 0.8
"""Two masks that overlap more are one object under two labels, as open-vocabulary checkpoints give it."""


class UnusableSegmenter(Exception):
    """The checkpoint does not segment instances."""


@dataclass(frozen=True, slots=True)
class YoloSegmenter:
    """One loaded checkpoint.

    Each picture goes through it alone: in a batch, ultralytics pads pictures to a common shape and gives up on the later ones when
    the first took long, so that a picture's segments would depend on its neighbours.
    """

    predict: Callable[[Pixels, int], Any]
    """Of a BGR picture and the side that it is fitted into: `ultralytics`' `Results`."""
    max_segments: int
    card: ModelCard
    at_once: int = 1

    def segment(self, pixels: Sequence[Pixels], mode: SegmentMode) -> list[list[Instance]]:
        return [self._segments(picture, INPUT_SIDES[mode]) for picture in pixels]

    def _segments(self, pixels: Pixels, side: int) -> list[Instance]:
        if self.max_segments == 0 or bounded_aspect(pixels).shape != pixels.shape:
            return []  # of a hairline no object can be told
        fitted = _fitted(pixels, side)
        result = self.predict(np.ascontiguousarray(fitted[..., ::-1]), side)
        return [] if result.masks is None else self._best(result, pixels)

    def _best(self, result: Any, pixels: Pixels) -> list[Instance]:
        masks: NDArray[np.uint8] = result.masks.data.cpu().numpy().astype(np.uint8)
        boxes: NDArray[np.float32] = result.boxes.xyxyn.cpu().numpy()
        scores: NDArray[np.float32] = result.boxes.conf.cpu().numpy()
        classes = result.boxes.cls.cpu().numpy().astype(int)
        kept: list[Instance] = []
        packed: list[NDArray[np.uint8]] = []
        for n in np.argsort(-scores, kind="stable"):
            mask, bbox = _shrunk(masks[n]), _bbox(boxes[n], pixels)
            bits = np.packbits(mask)
            if (
                mask.any()
                and bbox[2] > 0
                and bbox[3] > 0
                and not any(_overlap(bits, other) > SAME_OBJECT_IOU for other in packed)
            ):
                label = str(result.names[int(classes[n])])
                packed.append(bits)
                kept.append(Instance(label, float(scores[n]), bbox, mask, float(mask.mean())))
            if len(kept) == self.max_segments:
                break
        return kept


def load(
    checkpoint: Checkpoint, *, device: str, max_segments: int, min_score: float, precision: Precision = Precision.FP32
) -> YoloSegmenter:
    """In torch. Raises UnusableSegmenter, and whatever `ultralytics` raises for a damaged checkpoint."""
    with imported_ultralytics() as ultralytics:
        model = opened(ultralytics, checkpoint)
        reduced = precision is not Precision.FP32 and device.startswith("cuda")  # float16; on a CPU it has no such mode
        options = _options(max_segments, min_score) | {"device": device, "quantize": 16 if reduced else None}

        def predict(picture: Pixels, side: int) -> Any:
            (result,) = model.predict(picture, imgsz=side, **options)
            return result

        runtime = f"ultralytics {ultralytics.__version__}"
        family = type(model).__name__
        card = _card(checkpoint, family, runtime=runtime, device=device, precision="fp16" if reduced else "fp32")
        return _warm(YoloSegmenter(predict, max_segments, card))


def load_graph(
    checkpoint: Checkpoint,
    graph: Graph,
    facts: YoloFacts,
    *,
    runtime: str,
    precision: Precision,
    max_segments: int,
    min_score: float,
    at_once: int,
) -> YoloSegmenter:
    """Of an export, which was loaded for as many threads as `at_once`."""
    with imported_ultralytics():
        from model_service.yolo_graph import predictor  # noqa: PLC0415 - imports ultralytics

        predict = predictor(graph, facts, _options(max_segments, min_score), at_once=at_once)
        card = _card(checkpoint, facts.family, runtime=runtime, device="cpu", precision=precision)
        return _warm(YoloSegmenter(predict, max_segments, card, at_once))


def opened(ultralytics: Any, checkpoint: Checkpoint) -> Any:
    """The checkpoint as the library's own object. Raises as `load`."""
    kind = ultralytics.YOLOE if checkpoint.path.name.lower().startswith("yoloe") else ultralytics.YOLO
    model = kind(str(checkpoint.path))
    if model.task != "segment":
        raise UnusableSegmenter(f"it is a checkpoint for {model.task}, not for instance masks")
    return model


def _options(max_segments: int, min_score: float) -> dict[str, Any]:
    return {
        "conf": min_score,
        "max_det": 3 * max_segments,
        "agnostic_nms": True,
        "retina_masks": True,  # masks at the size of what was given, the letterbox undone
        "verbose": False,
        "save": False,
    }


def _card(checkpoint: Checkpoint, family: str, *, runtime: str, device: str, precision: str) -> ModelCard:
    return ModelCard(
        role="segmenter",
        model_name=family,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=runtime,
        device=device,
        precision=precision,
    )


def _warm(segmenter: YoloSegmenter) -> YoloSegmenter:
    segmenter.segment([np.full((64, 64, 3), 128, dtype=np.uint8)], SegmentMode.QUICK)
    return segmenter


@contextmanager
def imported_ultralytics() -> Iterator[Any]:
    """The library, for as long as it is loaded from: the threads that its first prediction takes from torch come back at the end.

    It writes settings when it is imported: into a folder that goes at once, unless one was named for them.
    """
    threads = torch.get_num_threads()
    os.environ.update(YOLO_AUTOINSTALL="false", YOLO_OFFLINE="true", YOLO_VERBOSE="false")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # it would set 1
    open_image = Image.open
    with tempfile.TemporaryDirectory(prefix="imagesearch-ultralytics-") as place:
        named = os.environ.setdefault("YOLO_CONFIG_DIR", place)
        import ultralytics  # noqa: PLC0415 - reads the variables above when it is imported

        Image.open = open_image  # its own would install packages when it meets bytes that are no picture
        if ultralytics.settings["sync"]:
            ultralytics.settings.update({"sync": False})
    if named == place:
        del os.environ["YOLO_CONFIG_DIR"]
    try:
        yield ultralytics
    finally:
        torch.set_num_threads(threads)


def _fitted(pixels: Pixels, side: int) -> Pixels:
    """The picture with a longer side of at most `side`."""
    height, width = pixels.shape[:2]
    if max(height, width) <= side:
        return pixels
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR))


def _bbox(corners: NDArray[np.float32], pixels: Pixels) -> BBox:
    """From shares of the picture to its pixels, clipped to it."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = np.clip(corners.astype(np.float64), 0, 1) * (width, height, width, height)
    return float(left), float(top), float(right - left), float(bottom - top)


def _shrunk(found: NDArray[np.uint8]) -> Mask:
    height, width = found.shape
    if max(found.shape) > MASK_SIDE:
        scale = MASK_SIDE / max(found.shape)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        found = np.asarray(Image.fromarray(found * 255).resize(size, Image.Resampling.BOX)) // 128
    return np.asarray(found, dtype=np.bool_)


def _overlap(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Intersection over union, of masks as packed bits: a quarter of the time that it takes pixel by pixel."""
    union = int(np.bitwise_count(one | other).sum())
    return int(np.bitwise_count(one & other).sum()) / max(1, union)
