"""Small real checkpoints, made in seconds and without a network: real loaders load them, and words find pictures with them.

The tiny CLIP is a `transformers` CLIPModel with a tokenizer and an image processor of its own, trained on pictures of coloured
shapes until "a red circle" finds red circles. `python -m tests.checkpoints FOLDER` makes a MODELS_DIR afresh.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

COLOURS = {
    "red": (214, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (235, 210, 40),
    "black": (15, 15, 15),
    "white": (250, 250, 250),
}
SHAPES = ("circle", "square", "triangle")
CLIP_ID = "openai/clip-vit-base-patch32"
RESNET_ID = "microsoft/resnet-50"
SEGMENTER_FILE = "tiny-seg.pt"

_REPOSITORY = Path(__file__).resolve().parents[1]
_IMAGE_SIDE = 32
_TRAINING_STEPS = 450


def synthetic_picture(colour: str, shape: str, size: int, *, seed: int) -> bytes:
    """A coloured shape on a greyish, noisy ground as a JPEG; place, scale and ground follow from `seed`."""
    encoded = io.BytesIO()
    _drawn(colour, shape, size, random.Random(f"{seed} {colour} {shape}")).save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def models_dir(folder: Path) -> Path:
    """Lay out a MODELS_DIR in which the default settings of `MODEL_PROFILE=clip` find everything.

    Made once per version of this file and of the libraries, in a child process, so that torch stays out of the tests' own.
    """
    return _copied(_made("checkpoints"), folder)


def exported_models_dir(folder: Path) -> Path:
    """`models_dir`, and beside them the exports that a product with MODEL_RUNTIME=onnx would make of them when it first starts."""
    return _copied(_made("exports", "--exported"), folder)


def _copied(made: Path, folder: Path) -> Path:
    shutil.copytree(made, folder, dirs_exist_ok=True)
    return folder


def _made(kind: str, *options: str) -> Path:
    cached = Path(tempfile.gettempdir()) / f"imagesearch-{kind}-{os.getuid()}-{_version()}"
    with cached.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not cached.exists():
            _make_once(cached, *options)
    return cached


def _version() -> str:
    digest = hashlib.sha256()
    service = _REPOSITORY / "model_service"
    for source in [Path(__file__), service / "exports.py", *sorted((service / "exporting").glob("*.py"))]:
        digest.update(source.read_bytes())
    for library in ("onnxruntime", "tokenizers", "torch", "transformers", "ultralytics"):
        digest.update(version(library).encode())
    return digest.hexdigest()[:12]


def _make_once(cached: Path, *options: str) -> None:
    """Whoever is first to rename wins; what a slower maker made beside it is thrown away."""
    with tempfile.TemporaryDirectory(prefix="imagesearch-checkpoints-") as place:
        made = Path(place) / "made"
        command = [sys.executable, "-m", "tests.checkpoints", str(made), *options]
        child = subprocess.run(command, cwd=_REPOSITORY, timeout=300, capture_output=True, text=True, check=False)
        if child.returncode:
            raise RuntimeError(f"the checkpoints could not be made:\n{child.stdout}{child.stderr}")
        try:
            made.rename(cached)
        except OSError:
            if not cached.exists():
                raise


def _drawn(colour: str, shape: str, size: int, rng: random.Random) -> Image.Image:
    noise = np.random.default_rng(rng.getrandbits(32))
    ground = rng.randint(90, 170) + noise.uniform(-12, 12, 3)
    image = Image.fromarray(np.clip(noise.normal(ground, 8, (size, size, 3)), 0, 255).astype(np.uint8))
    radius = size * rng.uniform(0.3, 0.42)
    x, y = (size * rng.uniform(0.44, 0.56) for _ in range(2))
    tint = tuple(max(0, min(255, level + rng.randint(-15, 15))) for level in COLOURS[colour])
    box = (x - radius, y - radius, x + radius, y + radius)
    draw = ImageDraw.Draw(image)
    if shape == "circle":
        draw.ellipse(box, fill=tint)
    elif shape == "square":
        draw.rectangle(box, fill=tint)
    elif shape == "triangle":
        draw.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=tint)
    else:
        raise ValueError(f"no such shape: {shape}")
    return image


# --- what the child process does -------------------------------------------------------------------------------------


def tiny_clip(folder: Path) -> None:
    """A trained CLIPModel with its tokenizer and image processor, deterministic but for the machine's arithmetic."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    torch.manual_seed(0)
    tokenizer = word_tokenizer()
    tower = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    config = CLIPConfig(
        text_config={**tower, **special, "vocab_size": len(tokenizer), "max_position_embeddings": tokenizer.model_max_length},
        vision_config={**tower, "image_size": _IMAGE_SIDE, "patch_size": 8},
        projection_dim=64,
    )
    images = CLIPImageProcessor(size={"shortest_edge": _IMAGE_SIDE}, crop_size={"height": _IMAGE_SIDE, "width": _IMAGE_SIDE})
    model = CLIPModel(config)
    _train(model, tokenizer, images)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images.save_pretrained(folder)


def tiny_resnet(folder: Path) -> None:
    """A ResNetModel with random weights and its image processor: its vectors tell pictures apart, no more."""
    import torch
    from transformers import ConvNextImageProcessor, ResNetConfig, ResNetModel

    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24, 32, 48], depths=[1, 1, 1, 1], layer_type="basic")
    ResNetModel(config).eval().save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": _IMAGE_SIDE}, crop_pct=0.875).save_pretrained(folder)


def tiny_segmenter(path: Path) -> None:
    """The YOLOv8-seg architecture at an eighth of its width with random weights, as a checkpoint that `YOLO(path)` loads."""
    with tempfile.TemporaryDirectory() as place:
        os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=place)
        import torch
        import ultralytics
        import yaml

        torch.manual_seed(0)
        architectures = Path(ultralytics.__file__).parent / "cfg" / "models"
        architecture = yaml.safe_load((architectures / "v8" / "yolov8-seg.yaml").read_text())
        architecture["scales"] = {"n": [0.33, 0.125, 1024]}
        described = Path(place) / "tiny-seg.yaml"
        described.write_text(yaml.safe_dump(architecture))
        path.parent.mkdir(parents=True, exist_ok=True)
        ultralytics.YOLO(str(described), task="segment").save(str(path))


def word_tokenizer(*, max_length: int = 24, further: Sequence[str] = ()) -> Any:
    """Word by word, `further` ones too. The end token's id isn't 2: CLIP takes 2 as the sign of its first, mistaken configuration."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<unk>", "<start>", "<end>", "a", "photo", "picture", "of", "the", "shape", *COLOURS, *SHAPES]
    words += [word for word in further if word not in words]
    ids = {word: n for n, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(word, ids[word]) for word in ("<start>", "<end>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<start>",
        eos_token="<end>",
        model_max_length=max_length,
    )


def _train(model: Any, tokenizer: Any, images: Any) -> None:
    """Each picture against all captions of three kinds: colour and shape together, colour alone, shape alone."""
    import torch

    rng = random.Random(0)
    kinds = list(product(COLOURS, SHAPES))
    drawn = [(n, _drawn(*kind, rng.choice((96, 128, 192)), rng)) for n, kind in enumerate(kinds) for _ in range(70)]
    pixels = torch.cat([images(images=picture, return_tensors="pt")["pixel_values"] for _, picture in drawn])
    kind_of = torch.tensor([n for n, _ in drawn])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=_TRAINING_STEPS, pct_start=0.15)
    model.train()
    for _ in range(_TRAINING_STEPS):
        start = rng.choice(("", "a ", "a picture of a ", "a photo of the "))
        captions = [f"{start}{words}" for words in (*map(" ".join, kinds), *COLOURS, *SHAPES)]
        chosen = torch.randint(len(drawn), (72,))
        seen = pixels[chosen].flip(-1) if rng.random() < 0.5 else pixels[chosen]
        scores = model(**tokenizer(captions, padding=True, return_tensors="pt"), pixel_values=seen).logits_per_image
        both, colour, shape = scores.split((len(kinds), len(COLOURS), len(SHAPES)), dim=1)
        kind = kind_of[chosen]
        parts = ((both, kind), (colour, kind // len(SHAPES)), (shape, kind % len(SHAPES)))
        optimizer.zero_grad()
        torch.stack([torch.nn.functional.cross_entropy(part, target) for part, target in parts]).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()


def main(folder: Path) -> None:
    import torch

    torch.set_num_threads(1)  # models this small only lose by waiting for a second thread, most of all on a busy machine
    tiny_clip(folder / CLIP_ID)
    tiny_resnet(folder / RESNET_ID)
    tiny_segmenter(folder / SEGMENTER_FILE)


def export(folder: Path) -> None:
    """As the model service does, by starting it."""
    from model_service.registry import load
    from model_service.settings import ModelSettings

    with tempfile.TemporaryDirectory() as pictures:
        chosen = ModelSettings(
            models_dir=folder, images_dir=Path(pictures), model_profile="clip", model_runtime="onnx", model_precision="fp32"
        )
        assert load(chosen)
    assert len(list((folder / "exports").iterdir())) == 3


if __name__ == "__main__":
    if sys.argv[2:] == ["--exported"]:
        export(models_dir(Path(sys.argv[1])))
    else:
        main(Path(sys.argv[1]))
