"""Models of the true architectures with random weights: as fast as the real ones, which are not to be had here, and as wrong as can be."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.questions import WORDS
from tests.checkpoints import CLIP_ID, word_tokenizer

_NAMES = 4585
"""Of a prompt-free YOLOE."""

_PROPOSED, _NAMED = 0.05, 0.002
"""Shares of places where something seems to be, and where it is named."""

_USUAL_CONFIDENCE = math.log(0.25 / 0.75)


def random_clip(models_dir: Path) -> Path:
    """CLIP ViT-B/32 as openai/clip-vit-base-patch32 describes it; its tokenizer is a small one of ours. Returns the checkpoint's folder."""
    import torch  # noqa: PLC0415 - takes seconds
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel  # noqa: PLC0415

    folder = models_dir / CLIP_ID
    torch.manual_seed(0)
    tokenizer = word_tokenizer(max_length=77, further=WORDS)
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    CLIPModel(CLIPConfig(text_config=special)).eval().save_pretrained(folder)
    CLIPImageProcessor().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def random_yoloe(path: Path, pictures: Sequence[Image.Image]) -> None:
    """YOLOE-11s, prompt-free with as many names as the real one, into a file that is called as one. Finds about ten things in each of
    `pictures`, since what it costs depends on that: its head names only places where something seems to be.

    Its normalisation learns from the pictures; without, every place would look the same to it.
    """
    import torch  # noqa: PLC0415 - takes seconds

    from model_service.segmenter import imported_ultralytics  # noqa: PLC0415

    torch.manual_seed(0)
    squares = np.stack([np.asarray(picture.resize((640, 640)), dtype=np.float32) / 255 for picture in pictures])
    images = torch.from_numpy(squares).permute(0, 3, 1, 2)
    with imported_ultralytics() as ultralytics, torch.no_grad():
        model = ultralytics.YOLOE("yoloe-11s-seg.yaml")
        network = model.model.eval()
        _normalised_by(network, images)
        widths = [branch[-1].in_channels for branch in network.model[-1].cv3]
        words = [f"thing {n}" for n in range(_NAMES)]
        model.set_vocab(torch.nn.ModuleList(torch.nn.Conv2d(width, _NAMES, 1) for width in widths), words)
        head = network.model[-1]
        for part, width in zip(head.lrpc, widths, strict=True):
            part.pf = torch.nn.Conv2d(width, 1, 1)
        _found_in(images, network, [part.pf for part in head.lrpc], share=_PROPOSED)
        _found_in(images, network, [part.vocab for part in head.lrpc], share=_NAMED)
        path.parent.mkdir(parents=True, exist_ok=True)
        model.save(str(path))


def _normalised_by(network: Any, images: Any) -> None:
    import torch  # noqa: PLC0415

    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    for layer in layers:
        layer.train()
        layer.momentum = None
    network(images)
    for layer in layers:
        layer.eval()


def _found_in(images: Any, network: Any, layers: Sequence[Any], *, share: float) -> None:
    """Shift the layers so that this share of places reaches the usual confidence, by their best name."""
    import torch  # noqa: PLC0415

    seen: list[Any] = []

    def keep(layer: Any, _: object, found: Any) -> None:
        names = 1 if isinstance(layer, torch.nn.Conv2d) else -1
        seen.append(found.amax(names).flatten())

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    network.model[-1].conf = 1e-9
    network(images)
    for hook in hooks:
        hook.remove()
    highest = torch.cat(seen).quantile(1 - share)
    for layer in layers:
        layer.bias -= highest - _USUAL_CONFIDENCE
