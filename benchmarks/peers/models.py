"""CLIP ViT-B/32 with random weights in the formats that peers read it in, where they don't make their own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

_RCLIP = "ViT-B-32-256-datacomp_s34b_b86k"
"""The folder that it looks in."""


def write(checkpoint: Path, folder: Path) -> Path:
    """Of the `transformers` checkpoint: itself, and its towers as ONNX in float32. Returns `folder`."""
    from model_service.exporting.onnx_files import write as write_onnx  # noqa: PLC0415 - torch takes seconds

    pictures, words = _towers(checkpoint)
    rclip, fastembed = folder / "rclip" / _RCLIP, folder / "fastembed"
    for made in (rclip, fastembed):
        made.mkdir(parents=True)
    (folder / "transformers").symlink_to(checkpoint.resolve())
    for module, example, path in ((*pictures, rclip / "visual.onnx"), (*words, rclip / "textual.onnx")):
        write_onnx(module, (example,), path, names=("input",), outputs=("output",), axes={"input": {0: "n"}, "output": {0: "n"}})
    (fastembed / "model.onnx").symlink_to(rclip / "visual.onnx")
    shutil.copy(checkpoint / "preprocessor_config.json", fastembed)
    return folder


def _towers(checkpoint: Path) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """Of pictures and of words, with an example of what each takes."""
    import torch  # noqa: PLC0415

    from model_service.backbones import load_model  # noqa: PLC0415

    model = load_model(checkpoint)

    class Pictures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projection = model.vision_model, model.visual_projection

        def forward(self, pixels: torch.Tensor) -> Any:
            return self.projection(self.tower(pixels).pooler_output)

    class Words(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.projection = model.text_model, model.text_projection

        def forward(self, tokens: torch.Tensor) -> Any:
            return self.projection(self.tower(tokens).pooler_output)

    return (Pictures().eval(), torch.zeros(2, 3, 224, 224)), (Words().eval(), torch.ones(2, 77, dtype=torch.int64))
