"""Pictures, words and segments: what each is traced from, calibrated on and compared by."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.decode import Pixels
from core.schemas import SegmentMode
from model_service import segmenter
from model_service.exporting import agreement, onnx_files
from model_service.exporting.making import Held, Part, embeddings_compared
from model_service.exports import Agreement, Kind, Wanted, YoloFacts
from model_service.graphs import Graph
from model_service.parts import Instance
from model_service.preparation import TOKENIZER, Preparation, Wording, Words, told_of
from model_service.runtimes import Precision
from model_service.towers import normalised
from model_service.weights import Checkpoint

TEXTS = (
    "dog",
    "a photo of a red car",
    "two people walk along the beach at sunset",
    "Mountains & lakes, 2019",
    "ein kleiner Hund im Schnee",
    "a man in a blue shirt is standing on a ladder cleaning a window of an old house while a child watches him from the street",
    "a very long text, " * 40,
    "",
)
_ODD_SIZES = ((480, 640), (641, 427), (100, 900), (31, 33), (224, 224), (1, 7))
_BATCH = 16
_CHECKED = 6
_SEGMENTED = 24
"""Pictures that segments are compared on: each is looked at twice, at 640 pixels."""


def opened(wanted: Wanted, held: Held) -> Part:
    """Raises what the libraries raise for a damaged checkpoint."""
    kinds: dict[Kind, Callable[[Wanted, Held], Part]] = {"images": _Images, "words": _Words, "segments": _Segments}
    return kinds[wanted.kind](wanted, held)


class _Images(Part):
    def __init__(self, wanted: Wanted, held: Held) -> None:
        self._tower = onnx_files.image_tower(wanted)
        self._held = held
        self._preparation = _checked_preparation(self._tower)
        self.transformer = any("attention" in type(module).__name__.lower() for module in self._tower.module.modules())

    def write_source(self, path: Path) -> None:
        self._tower.write(path)

    def check(self, exact: Graph) -> Agreement:
        inputs = {"pixels": np.stack([self._tower.prepare(pixels) for pixels in self._held.comparing[:3]])}
        return _to_torch(self._tower, exact, [inputs, {"pixels": inputs["pixels"][:1]}])

    def samples(self, exact: Graph) -> Sequence[Mapping[str, NDArray[Any]]]:
        return [{"pixels": self._tower.prepare(pixels)[None]} for pixels in self._held.calibrating]

    def compare(self, exact: Graph, other: Graph) -> Agreement:
        prepared = [self._tower.prepare(pixels) for pixels in self._held.comparing]
        batches = [{"pixels": np.stack(prepared[start : start + _BATCH])} for start in range(0, len(prepared), _BATCH)]
        return embeddings_compared(exact, other, batches)

    def facts(self, folder: Path, exact: Graph) -> dict[str, Any]:
        return {"dim": int(normalised(exact(self._tower.example)[0]).shape[1]), "preparation": self._preparation}


class _Words(Part):
    transformer = True

    def __init__(self, wanted: Wanted, held: Held) -> None:
        self._tower = onnx_files.text_tower(wanted)
        self._inputs = [self._tower.tokens(batch) for batch in (TEXTS, TEXTS[:1], TEXTS[1:4], TEXTS[5:7])]

    def write_source(self, path: Path) -> None:
        self._tower.write(path)

    def check(self, exact: Graph) -> Agreement:
        return _to_torch(self._tower, exact, self._inputs)

    def samples(self, exact: Graph) -> Sequence[Mapping[str, NDArray[Any]]]:
        return [self._tower.tokens([text]) for text in TEXTS]

    def compare(self, exact: Graph, other: Graph) -> Agreement:
        return embeddings_compared(exact, other, self._inputs[:1])

    def facts(self, folder: Path, exact: Graph) -> dict[str, Any]:
        """The tokenizer goes beside the graph, if it makes the same tokens without `transformers`."""
        dim = int(normalised(exact(self._tower.example)[0]).shape[1])
        return {"dim": dim, "wording": _checked_wording(self._tower, folder)}


class _Segments(Part):
    def __init__(self, wanted: Wanted, held: Held) -> None:
        self._checkpoint = Checkpoint(wanted.checkpoint, wanted.source, wanted.revision)
        self._held = held
        with segmenter.imported_ultralytics() as ultralytics:
            opened = segmenter.opened(ultralytics, self._checkpoint)
        self._model = opened.model
        self._facts = YoloFacts(
            family=type(opened).__name__,
            labels={int(n): str(name) for n, name in self._model.names.items()},
            stride=int(max(self._model.stride)),
            end2end=bool(getattr(self._model, "end2end", False)),
        )

    def write_source(self, path: Path) -> None:
        self.exact = onnx_files.write_segmenter(self._model, path)

    def check(self, exact: Graph) -> Agreement:
        torch = segmenter.load(self._checkpoint, device="cpu", max_segments=20, min_score=0.25)
        pictures = self._held.comparing[:_CHECKED]
        return agreement.of_segments(torch.segment(pictures, SegmentMode.STANDARD), self._found(exact, pictures))

    def samples(self, exact: Graph) -> Sequence[Mapping[str, NDArray[Any]]]:
        seen = _Seen(exact)
        self._found(seen, self._held.calibrating[:_SEGMENTED])
        return seen.inputs

    def compare(self, exact: Graph, other: Graph) -> Agreement:
        pictures = self._held.comparing[:_SEGMENTED]
        return agreement.of_segments(self._found(exact, pictures), self._found(other, pictures))

    def facts(self, folder: Path, exact: Graph) -> dict[str, Any]:
        return {"yolo": self._facts}

    def _found(self, graph: Graph, pictures: Sequence[Pixels]) -> list[list[Instance]]:
        loaded = segmenter.load_graph(
            self._checkpoint, graph, self._facts, runtime="", precision=Precision.FP32, max_segments=20, min_score=0.25, at_once=1
        )
        return loaded.segment(pictures, SegmentMode.STANDARD)


class _Seen:
    """A graph that keeps what it was given."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs: list[Mapping[str, NDArray[Any]]] = []

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        self.inputs.append({name: array.copy() for name, array in inputs.items()})
        return self._graph(inputs)


def _to_torch(tower: onnx_files.Traced, exact: Graph, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> Agreement:
    """In batches of all sizes."""
    return agreement.of_embeddings(
        np.concatenate([tower(one) for one in inputs]), np.concatenate([normalised(exact(one)[0]) for one in inputs])
    )


def _checked_preparation(tower: onnx_files.Pictures) -> Preparation | None:
    """The processor in numbers, if they make the same of pictures of any size and shape."""
    try:
        told = told_of(tower.processor)
        rng = np.random.default_rng(0)
        pictures = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in _ODD_SIZES]
        same = told is not None and all(np.allclose(told(one), tower.prepare(one), atol=1e-4) for one in pictures)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return told if same else None


def _checked_wording(tower: onnx_files.Texts, folder: Path) -> Wording | None:
    """How `tokenizer.json` is to be used, if it then makes the same tokens."""
    backend = getattr(tower.tokens.tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    (folder / TOKENIZER).write_text(backend.to_str(), encoding="utf-8")
    wording = Wording(
        names=tower.names,
        max_tokens=tower.tokens.longest,
        pad_id=tower.tokens.tokenizer.pad_token_id or 0,
        pad_token=tower.tokens.tokenizer.pad_token or "[PAD]",
        to_longest=tower.tokens.to_longest,
    )
    words = Words.load(folder, wording)
    same = all(
        all(np.array_equal(words(texts)[name], tower.tokens(texts)[name]) for name in tower.names)
        for texts in (TEXTS, TEXTS[:1], TEXTS[1:3], TEXTS[6:])
    )
    return wording if same else None
