"""Towers and segmenters over exports. Of towers, neither torch nor `transformers` is imported where the export tells how to prepare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from core.decode import Pixels
from core.schemas import ModelCard, Space
from core.threads import ThreadBudget
from model_service import graphs
from model_service.exports import Export
from model_service.graphs import Graph
from model_service.parts import Segmenter, Tensor
from model_service.preparation import Words
from model_service.towers import PictureTower, Tokens, TwoTowers
from model_service.weights import Checkpoint


def image_tower(
    export: Export, checkpoint: Checkpoint, *, model_name: str, threads: ThreadBudget, text: bool = False
) -> PictureTower:
    """Of pictures alone, or of a dual encoder. `checkpoint` names the space. Raises what the runtime raises for a damaged file."""
    record = export.record
    dim = record.dim or 0
    card = ModelCard(
        role="embedder",
        model_name=model_name,
        source=checkpoint.name,
        revision=checkpoint.revision,
        runtime=record.runtime,
        device="cpu",
        precision=record.precision,
    )
    space = Space(collection=checkpoint.collection, model_name=model_name, dim=dim, text=text)
    graph = _graph(export, threads, passes=threads.passes)
    return PictureTower(_preparation(export, checkpoint), _pictures(graph), space, card, at_once=threads.passes)


def two_towers(
    images: Export, words: Export, checkpoint: Checkpoint, texts: Checkpoint, *, model_name: str, threads: ThreadBudget
) -> TwoTowers:
    """`checkpoint` is the image tower's; `texts` may be the same. Raises ValueError when the towers do not meet, and as `image_tower`."""
    named = checkpoint
    if texts != checkpoint:
        named = Checkpoint(checkpoint.path, checkpoint.name, checkpoint.joined_with(texts))
    if images.record.dim != words.record.dim:
        raise ValueError(f"its towers do not meet: pictures have {images.record.dim} numbers, words {words.record.dim}")
    tower = image_tower(images, named, model_name=model_name, threads=threads, text=True)
    return TwoTowers(tower, _tokens(words, texts), _texts(_graph(words, threads, passes=1)))


def segmenter(export: Export, checkpoint: Checkpoint, *, max_segments: int, min_score: float, threads: ThreadBudget) -> Segmenter:
    """Raises ValueError for the export of a tower, and as `image_tower`."""
    from model_service.segmenter import load_graph  # noqa: PLC0415 - imports torch, for what comes after the graph

    record = export.record
    if record.yolo is None:
        raise ValueError("the export is no segmenter's")
    return load_graph(
        checkpoint,
        _graph(export, threads, passes=threads.passes),
        record.yolo,
        runtime=record.runtime,
        precision=record.precision,
        max_segments=max_segments,
        min_score=min_score,
        at_once=threads.passes,
    )


def _graph(export: Export, threads: ThreadBudget, *, passes: int) -> Graph:
    return graphs.load(export.folder, export.runtime, export.record.precision, threads=threads.inference, passes=passes)


def _preparation(export: Export, checkpoint: Checkpoint) -> Callable[[Pixels], Tensor]:
    if export.record.preparation is not None:
        return export.record.preparation
    from model_service import backbones, encoders  # noqa: PLC0415 - only for processors that cannot be told in numbers

    processor = backbones.load_image_processor(checkpoint.path)
    return lambda pixels: encoders.prepared(processor, pixels)


def _tokens(export: Export, texts: Checkpoint) -> Callable[[Sequence[str]], Tokens]:
    if export.record.wording is not None:
        return Words.load(export.folder, export.record.wording)
    from model_service import backbones, encoders  # noqa: PLC0415 - as above

    return encoders.reader_of(texts.path, backbones.load_model(texts.path, may_lack="pooler."))


def _pictures(graph: Graph) -> Callable[[Tensor], NDArray[Any]]:
    return lambda pixels: graph({"pixels": pixels})[0]


def _texts(graph: Graph) -> Callable[[Tokens], NDArray[Any]]:
    return lambda tokens: graph(tokens)[0]
