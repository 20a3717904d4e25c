"""Read a shipped artefact back into a checkpoint, so that training can go on from it: `train --start`, a teacher of `distil`.

What was stored small comes back as it was stored: rounded to float16 in the image tower, to int8 in the text tower.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import GraphProto, numpy_helper

from training.starter.towers import Starter, build

Arrays = dict[str, NDArray[np.float32]]


def stored(graph: GraphProto) -> Arrays:
    """Every weight by its name in torch, unfolded to float32."""
    raw = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    found: Arrays = {}
    for name, values in raw.items():
        if name.endswith(".half"):
            found[name.removesuffix(".half")] = values.astype(np.float32)
        elif name.endswith(".int8"):
            plain = name.removesuffix(".int8")
            found[plain] = values.astype(np.float32) * raw[f"{plain}.scale"]
        elif values.dtype == np.float32 and not name.endswith(".scale"):
            found[name] = values
    matrices = {_owner(graph, name): found[name].T for name in found if name.startswith("onnx::MatMul")}
    found |= {name: matrix for name, matrix in matrices.items() if name is not None}
    twins = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}  # equal ones are kept once
    return found | {name: found[kept] for name, kept in twins.items() if kept in found}


def _owner(graph: GraphProto, matrix: str) -> str | None:
    """The exporter transposes a linear layer's matrix and drops its name; the bias that is added to the product still has it.

    None where no bias is added: a matrix of what comes after the towers.
    """
    product = next(node.output[0] for node in graph.node if node.op_type == "MatMul" and matrix in node.input)
    added = [str(name) for node in graph.node if node.op_type == "Add" and product in node.input for name in node.input]
    return next((name.removesuffix("bias") + "weight" for name in added if name.endswith(".bias")), None)


def restore(artefact: Path, model: Starter) -> None:
    """Raises ValueError when the artefact lacks a weight of the model's."""
    known: Arrays = {}
    for file, served, ours in (("image.onnx", "tower.", "image."), ("text.onnx", "tower.", "text.")):
        arrays = stored(onnx.load(str(artefact / file)).graph)
        known |= {ours + name.removeprefix(served): values for name, values in arrays.items() if name.startswith(served)}
    state = model.state_dict()
    lacking = sorted(state.keys() - known.keys() - {"log_scale"})
    if lacking:
        raise ValueError(f"{artefact} lacks {', '.join(lacking)}")
    model.load_state_dict({name: torch.from_numpy(known[name].copy()) if name in known else old for name, old in state.items()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--run", default="shipped", help="name of the result, a run like the others")
    parser.add_argument("--trained-layers", type=int, default=3)
    arguments = parser.parse_args()
    model = build(arguments.shared, arguments.trained_layers)
    restore(arguments.artefact, model)
    folder = arguments.work / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "starter.pt")
    sys.stdout.write(f"{folder / 'starter.pt'}: from {arguments.artefact}\n")


if __name__ == "__main__":
    main()
