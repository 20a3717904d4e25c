"""Average checkpoints of one lineage, step a little past them, and let the class names speak up; all chosen on the dev split.

Runs that overfit in different ways average well (Wortsman et al. 2022, model soups). `--beyond` moves the tuned layers on, away from
their pretrained weights, by that share of the way they came. `--names-voice` raises the trust in the head's class names.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.starter.towers import build

Weights = dict[str, Tensor]
IMAGE = ("image.upper", "image.head.classifier")
TEXT = ("text.layers",)


def averaged(checkpoints: list[Weights], shares: list[float]) -> Weights:
    total = sum(shares)
    return {
        name: torch.stack([share / total * each[name] for each, share in zip(checkpoints, shares, strict=True)]).sum(0)
        if first.is_floating_point()
        else first
        for name, first in checkpoints[0].items()
    }


def beyond(weights: Weights, pretrained: Weights, prefixes: tuple[str, ...], share: float) -> Weights:
    return {
        name: (1 + share) * value - share * pretrained[name] if name.startswith(prefixes) else value
        for name, value in weights.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True, metavar="RUN:SHARE")
    parser.add_argument("--run", default="starter", help="name of the result, a run like the others")
    parser.add_argument("--beyond-image", type=float, default=0.2)
    parser.add_argument("--beyond-text", type=float, default=0.15)
    parser.add_argument("--names-voice", type=float, default=2.5)
    parser.add_argument("--trained-layers", type=int, default=3)
    arguments = parser.parse_args()
    pairs = [run.rsplit(":", 1) for run in arguments.runs]
    checkpoints = [torch.load(arguments.work / run / "starter.pt") for run, _ in pairs]
    pretrained = build(arguments.shared, arguments.trained_layers).state_dict()
    weights = averaged(checkpoints, [float(share) for _, share in pairs])
    weights = beyond(weights, pretrained, IMAGE, arguments.beyond_image)
    weights = beyond(weights, pretrained, TEXT, arguments.beyond_text)
    weights["image.head.trust.bias"][2] += arguments.names_voice
    folder = arguments.work / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(weights, folder / "starter.pt")


if __name__ == "__main__":
    main()
