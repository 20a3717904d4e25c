"""Instance masks from a YOLO checkpoint through `ultralytics`: YOLOE prompt-free, or any closed-set YOLO-seg.

`ultralytics` writes settings to the home directory, reports its use, installs what it misses and replaces `PIL.Image.open`;
all of that is switched off before it is imported or undone after.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.decode import Pixels
from core.masks import Mask
from core.schemas import ModelCard, SegmentMode
from model_service.parts import Instance
from model_service.sources import Checkpoint

MASK_SIDE = 640
"""Longest side of a mask on the wire (`core.schemas.MaskRle`)."""
INPUT_SIDES = {SegmentMode.QUICK: 320, SegmentMode.STANDARD: 640, SegmentMode.FULL: 1280}
_SCORE_FACTORS = {SegmentMode.QUICK: 1.2, SegmentMode.STANDARD: 1.0, SegmentMode.FULL: 0.6}
MIN_AREA = 0.0005
"""Smaller shares of the picture are specks: an embedding of them says nothing."""
SAME_OBJECT_IOU = 0.8
"""Two masks that overlap more are one object under two labels, as open-vocabulary checkpoints give it."""


class UnusableSegmenter(Exception):
    """The checkpoint does not segment instances."""


@dataclass(frozen=True, slots=True)
class SegmentLimits:
    """What of the found instances is kept."""

    max_segments: int
    min_score: float


@dataclass(frozen=True, slots=True)
class YoloSegmenter:
    """One loaded checkpoint. Pictures of one shape go through it together, so that no picture's result depends on its batch."""

    model: Any
    device: str
    limits: SegmentLimits
    card: ModelCard

    def segment(self, pixels: Sequence[Pixels], mode: SegmentMode) -> list[list[Instance]]:
        fitted = [_fitted(picture, INPUT_SIDES[mode]) for picture in pixels]
        found: dict[int, list[Instance]] = {}
        for shape in {picture.shape for picture in fitted}:
            alike = [n for n, picture in enumerate(fitted) if picture.shape == shape]
            results = self._predicted([fitted[n] for n in alike], mode)
            for n, result in zip(alike, results, strict=True):
                found[n] = self._instances(result, pixels[n].shape)
        return [found[n] for n in range(len(fitted))]

    def _predicted(self, pictures: list[Pixels], mode: SegmentMode) -> list[Any]:
        bgr = [np.ascontiguousarray(picture[..., ::-1]) for picture in pictures]
        results = self.model.predict(
            bgr,
            imgsz=INPUT_SIDES[mode],
            conf=min(0.95, self.limits.min_score * _SCORE_FACTORS[mode]),
            max_det=max(1, 3 * self.limits.max_segments),
            agnostic_nms=True,
            retina_masks=True,
            device=self.device,
            verbose=False,
            save=False,
        )
        return cast("list[Any]", results)

    def _instances(self, result: Any, shape: tuple[int, ...]) -> list[Instance]:
        if result.masks is None:
            return []
        masks: NDArray[np.uint8] = result.masks.data.cpu().numpy().astype(np.uint8)
        scores = result.boxes.conf.cpu().numpy()
        classes = result.boxes.cls.cpu().numpy().astype(int)
        kept: list[Instance] = []
        for n in np.argsort(-scores, kind="stable"):
            instance = _instance(masks[n], str(result.names[int(classes[n])]), float(scores[n]), shape)
            if instance and not any(_overlap(instance.mask, other.mask) > SAME_OBJECT_IOU for other in kept):
                kept.append(instance)
            if len(kept) == self.limits.max_segments:
                break
        return kept


def load(checkpoint: Checkpoint, *, device: str, limits: SegmentLimits) -> YoloSegmenter:
    """Raises UnusableSegmenter, and whatever `ultralytics` raises for a damaged checkpoint."""
    ultralytics = _imported_ultralytics()
    model = ultralytics.YOLO(str(checkpoint.path))  # routes a YOLOE checkpoint to its own class
    if model.task != "segment":
        raise UnusableSegmenter(f"{checkpoint.name} is a checkpoint for {model.task}, not for instance masks")
    card = ModelCard(
        role="segmenter",
        model_name=type(model).__name__,
        source=checkpoint.name,
        revision=checkpoint.revision[:12],
        runtime=f"ultralytics {ultralytics.__version__}",
        device=device,
        precision="float32",
    )
    segmenter = YoloSegmenter(model, device, limits, card)
    segmenter.segment([np.full((64, 64, 3), 128, dtype=np.uint8)], SegmentMode.QUICK)
    return segmenter


def _imported_ultralytics() -> Any:
    os.environ["YOLO_AUTOINSTALL"] = "false"
    os.environ["YOLO_OFFLINE"] = "true"
    os.environ["YOLO_VERBOSE"] = "false"
    os.environ.setdefault("YOLO_CONFIG_DIR", tempfile.mkdtemp(prefix="imagesearch-yolo-"))
    open_image = Image.open
    import ultralytics  # noqa: PLC0415 - reads the variables above when it is imported

    Image.open = open_image  # its own would install packages when it meets bytes that are no picture
    return ultralytics


def _fitted(pixels: Pixels, side: int) -> Pixels:
    """The picture with a longer side of at most `side`."""
    picture = Image.fromarray(pixels)
    if max(picture.size) > side:
        scale = side / max(picture.size)
        width, height = (max(1, round(length * scale)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture)


def _instance(found: NDArray[np.uint8], label: str, score: float, shape: tuple[int, ...]) -> Instance | None:
    """Bring a mask to the wire's size, and its box (which the mask, not the detector, defines) to the picture's pixels."""
    mask = _shrunk(found)
    area = float(mask.mean())
    if area < MIN_AREA:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    across, down = shape[1] / mask.shape[1], shape[0] / mask.shape[0]
    x, y = columns[0] * across, rows[0] * down
    width, height = (columns[-1] + 1) * across - x, (rows[-1] + 1) * down - y
    return Instance(label, min(1.0, score), (float(x), float(y), float(width), float(height)), mask, area)


def _shrunk(found: NDArray[np.uint8]) -> Mask:
    height, width = found.shape
    if max(found.shape) > MASK_SIDE:
        scale = MASK_SIDE / max(found.shape)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        found = np.asarray(Image.fromarray(found * 255).resize(size, Image.Resampling.BOX)) // 128
    return np.asarray(found, dtype=np.bool_)


def _overlap(one: Mask, other: Mask) -> float:
    """Intersection over union."""
    return float(np.logical_and(one, other).sum() / max(1, np.logical_or(one, other).sum()))
