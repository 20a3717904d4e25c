"""Write the served artefact: two ONNX graphs, the tokenizer and `embedder.json`.

Weights are stored small and computed with in float32: the image tower's as float16, the text tower's as int8 with a scale for each
output channel (for each word in the word table). ONNX Runtime unfolds them once, on loading; so an old CPU gives the same
vectors as a new one, which int8 arithmetic does not.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from training.starter.hubness import Hubness
from training.starter.model import DIM, load_backbone
from training.starter.photos import MEAN, SERVED_SIDE, STD
from training.starter.served import ServedImageTower, ServedTextTower
from training.starter.texts import MAX_TOKENS
from training.starter.towers import build, minilm

OPSET = 17
SMALL = 4096
"""Tensors of fewer elements (biases, norms) stay float32."""


def as_float16(model: ModelProto) -> None:
    """Store every large float32 weight as float16 behind a Cast."""
    graph, casts = model.graph, []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= SMALL:
            _replace(graph, tensor, f"{tensor.name}.half", values.astype(np.float16))
            casts.append(helper.make_node("Cast", [f"{tensor.name}.half"], [tensor.name], to=TensorProto.FLOAT))
    _prepend(graph, casts)


def as_int8(model: ModelProto) -> None:
    """Store every large matrix as int8 with a scale for each column, or each row where it is a table that Gather reads."""
    graph = model.graph
    tables = {node.input[0]: node for node in graph.node if node.op_type == "Gather"}
    unfolding: list[NodeProto] = []
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.ndim != 2 or values.size < SMALL:
            continue
        table = tables.get(tensor.name)
        stored, scale = quantised(values, axis=1 if table is not None else _reduced_axis(graph, tensor.name))
        _replace(graph, tensor, f"{tensor.name}.int8", stored)
        graph.initializer.append(numpy_helper.from_array(scale, f"{tensor.name}.scale"))
        if table is None:
            unfolding += _times_scale(f"{tensor.name}.int8", f"{tensor.name}.scale", tensor.name)
        else:
            _gather_then_scale(graph, table, tensor.name)
    _prepend(graph, unfolding)


def quantised(values: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scale = np.maximum(np.abs(values).max(axis=axis, keepdims=True) / 127.0, 1e-12).astype(np.float32)
    return np.rint(values / scale).astype(np.int8), scale


def _reduced_axis(graph: GraphProto, name: str) -> int:
    """The axis that the product sums over: Gemm with transB keeps (out, in), MatMul (in, out)."""
    gemm = next((node for node in graph.node if node.op_type == "Gemm" and node.input[1] == name), None)
    return 1 if gemm is not None and any(a.name == "transB" and a.i == 1 for a in gemm.attribute) else 0


def _times_scale(stored: str, scale: str, name: str) -> list[NodeProto]:
    cast = helper.make_node("Cast", [stored], [f"{name}.cast"], to=TensorProto.FLOAT)
    return [cast, helper.make_node("Mul", [f"{name}.cast", scale], [name])]


def _gather_then_scale(graph: GraphProto, gather: NodeProto, name: str) -> None:
    """Read the int8 rows first: the whole word table in float32 would take 47 MB of memory."""
    place, result = list(graph.node).index(gather), gather.output[0]
    scales = helper.make_node("Gather", [f"{name}.scale", gather.input[1]], [f"{result}.scale"], axis=0)
    gather.input[0], gather.output[0] = f"{name}.int8", f"{result}.int8"
    for offset, node in enumerate([scales, *_times_scale(f"{result}.int8", f"{result}.scale", result)], start=1):
        graph.node.insert(place + offset, node)


def _replace(graph: GraphProto, tensor: TensorProto, name: str, values: NDArray[np.generic]) -> None:
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(values, name))


def _prepend(graph: GraphProto, nodes: list[NodeProto]) -> None:
    for node in reversed(nodes):
        graph.node.insert(0, node)


def write_towers(shared: Path, run: Path, trained_layers: int, out: Path, *, exact: bool) -> None:
    model, hubness = build(shared, trained_layers), Hubness(DIM)
    model.load_state_dict(torch.load(run / "starter.pt"))
    hubness.load_state_dict(torch.load(run / "hubness.pt"))
    model.eval().to(memory_format=torch.contiguous_format)
    image = ServedImageTower(load_backbone(shared / "models/mobilenet_v2_imagenet.onnx").lower, model.image, hubness).eval()
    ids = torch.ones(2, 8, dtype=torch.int64)
    _write(image, (torch.zeros(2, 3, SERVED_SIDE, SERVED_SIDE),), {"pixels": {0: "n"}}, out / "image.onnx")
    _write(
        ServedTextTower(model.text, hubness).eval(),
        (ids, ids),
        {name: {0: "n", 1: "t"} for name in ("input_ids", "attention_mask")},
        out / "text.onnx",
    )
    if not exact:
        for name, shrink in (("image.onnx", as_float16), ("text.onnx", as_int8)):
            graph = onnx.load(str(out / name))
            shrink(graph)
            onnx.checker.check_model(graph)
            onnx.save(graph, str(out / name))


def _write(tower: torch.nn.Module, example: tuple[torch.Tensor, ...], axes: dict[str, dict[int, str]], path: Path) -> None:
    torch.onnx.export(
        tower,
        example,
        str(path),
        dynamo=False,  # the other exporter wants onnxscript
        opset_version=OPSET,
        input_names=list(axes),
        output_names=["embedding"],
        dynamic_axes={**axes, "embedding": {0: "n"}},
    )


def write_description(out: Path) -> str:
    """Returns the revision: the first 12 hex digits of the weights' hash."""
    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    digest = hashlib.sha256()
    for name in ("image.onnx", "text.onnx", "tokenizer.json"):
        digest.update((out / name).read_bytes())
    revision = digest.hexdigest()[:12]
    description = {
        "format": 1,
        "name": "starter",
        "revision": revision,
        "dim": DIM,
        "image": {"file": "image.onnx", "size": SERVED_SIDE, "resize": "shortest", "mean": [MEAN] * 3, "std": [STD] * 3},
        "text": {"file": "text.onnx", "tokenizer": "tokenizer.json", "max_tokens": MAX_TOKENS, "template": "{}"},
    }
    (out / "embedder.json").write_text(json.dumps(description, indent=2) + "\n")
    return revision


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="starter")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--trained-layers", type=int, default=3)
    parser.add_argument("--exact", action="store_true", help="keep float32, to measure what the small storage costs")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_towers(arguments.shared, arguments.work / arguments.run, arguments.trained_layers, arguments.out, exact=arguments.exact)
    revision = write_description(arguments.out)
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    sys.stdout.write(f"{arguments.out}: revision {revision}, {size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
