"""An exported segmenter in the place where `ultralytics` expects its own: its letterbox, suppression and masks around our graph."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import torch

from core.decode import Pixels
from model_service.exports import YoloFacts
from model_service.graphs import Graph


class GraphModel:
    """What `ultralytics`' predictor asks of a model."""

    format = "graph"
    task = "segment"
    fp16 = False
    dynamic = True  # so pictures are padded to the next multiple of the stride, as in torch, and not to a square
    base_model = False
    channels = 3

    def __init__(self, graph: Graph, facts: YoloFacts) -> None:
        self._graph = graph
        self.names, self.stride, self.end2end = facts.labels, facts.stride, facts.end2end
        self.device = torch.device("cpu")

    def __call__(self, images: torch.Tensor, **_: object) -> list[torch.Tensor]:
        return [torch.from_numpy(output) for output in self._graph({"images": images.numpy()})]

    def warmup(self, **_: object) -> None:
        """Whoever loads it runs it."""


def predictor(graph: Graph, facts: YoloFacts, options: dict[str, Any], *, at_once: int) -> Callable[[Pixels, int], Any]:
    """Of a BGR picture and the side that it is fitted into: its `Results`, for as many threads. `options` are `ultralytics`' own."""
    from ultralytics.models.yolo.segment import SegmentationPredictor  # noqa: PLC0415 - imported with its side effects undone

    free: SimpleQueue[Any] = SimpleQueue()
    for _ in range(at_once):
        made = SegmentationPredictor(overrides={**options, "device": "cpu", "mode": "predict", "rect": True})
        made.model, made.device = GraphModel(graph, facts), torch.device("cpu")
        free.put(made)

    def predict(picture: Pixels, side: int) -> Any:
        made = free.get()  # it keeps what it works on as state
        try:
            made.args.imgsz = side
            (result,) = made(source=picture)
            return result
        finally:
            free.put(made)

    return predict
