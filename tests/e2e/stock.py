"""Pictures for the folder, models that make all of the page of it, and the words that find some: real photos where there are, else drawn ones."""

from __future__ import annotations

import io
import tarfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.checkpoints import COLOURS, SHAPES, synthetic_picture

PROFILE = "page"
_A_CLASS = 4
_STREETS = 16
_CLASSES = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")


@dataclass(frozen=True)
class Stock:
    """`shelf` lies in the folder from the start and `late` comes by and by, each by path; `words` find what lies in `folder`."""

    profile: str
    words: str
    folder: str
    shelf: dict[str, bytes]
    late: dict[str, bytes]

    @property
    def asked(self) -> bytes:
        """A picture of `folder`: itself in the folder, and twice, near enough."""
        return self.shelf[next(path for path in self.shelf if path.startswith(f"{self.folder}/"))]

    def put(self, pictures: dict[str, bytes], images: Path) -> None:
        for path, content in pictures.items():
            (images / path).parent.mkdir(parents=True, exist_ok=True)
            (images / path).write_bytes(content)


def photos(shared: Path, models_dir: Path, *, a_class: int = _A_CLASS) -> Stock:
    """Clothes (CC0) and, late, COCO's streets; the shipped starter for words, a ResNet of random weights beside it, and YOLOv8n-seg."""
    folder = models_dir / PROFILE
    folder.mkdir()
    (folder / "profile.toml").write_text(f"""
        [embedder]
        model = "starter"
        name = "Starter"
        [image_embedder]
        model = "microsoft/resnet-50"
        name = "ResNet"
        [segmenter]
        model = "{shared / "models" / "yolov8n-seg.pt"}"
    """)
    shelf = clothes(shared, a_class)
    shelf["shoes/copy.jpg"] = _again(next(content for path, content in shelf.items() if path.startswith("shoes/")))
    return Stock(profile=PROFILE, words="a pair of shoes", folder="shoes", shelf=shelf, late=_streets(shared))


def clothes(shared: Path, a_class: int) -> dict[str, bytes]:
    """So many photos of each class, by `class/name.jpg`, from a set released under CC0."""
    kept: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    with tarfile.open(shared / "data" / "clothing" / "images-00.tar") as tar:
        for name in sorted(tar.getnames()):
            part, _, rest = name.partition("/")
            kind, _, file = rest.partition("/")
            if part == "test" and kind in _CLASSES and file.endswith(".jpg") and len(kept[kind]) < a_class:
                kept[kind][f"{kind}/{file[:8]}.jpg"] = tar.extractfile(name).read()  # type: ignore[union-attr]
    return {path: content for kind in sorted(kept) for path, content in kept[kind].items()}


def drawn() -> Stock:
    """Coloured shapes, and the small checkpoints of `tests.checkpoints`: words find them, and random segments lie on them."""
    drawn = {
        f"{shape}/{colour}-{seed}.jpg": synthetic_picture(colour, shape, 240, seed=seed)
        for shape in SHAPES
        for colour in COLOURS
        for seed in range(2)
    }
    drawn["circle/copy.jpg"] = _again(next(content for path, content in drawn.items() if path.startswith("circle/")))
    late = {
        f"street/{colour}-{seed}.jpg": synthetic_picture(colour, "square", 320, seed=seed)
        for colour in COLOURS
        for seed in range(9, 18)
    }
    return Stock(profile="clip", words="a circle", folder="circle", shelf=drawn, late=late)


def _streets(shared: Path) -> dict[str, bytes]:
    with tarfile.open(shared / "data" / "photos" / "coco-80-masks.tar") as tar:
        names = sorted(name for name in tar.getnames() if name.endswith(".jpg"))[:_STREETS]
        return {f"street/{Path(name).name}": tar.extractfile(name).read() for name in names}  # type: ignore[union-attr]


def corner(content: bytes) -> bytes:
    """The upper left three quarters of a picture, which is a picture of its own: no other is as near to it."""
    picture = Image.open(io.BytesIO(content))
    written = io.BytesIO()
    picture.crop((0, 0, picture.width * 3 // 4, picture.height * 3 // 4)).save(written, "JPEG", quality=95)
    return written.getvalue()


def _again(content: bytes) -> bytes:
    """The same picture in other bytes."""
    written = io.BytesIO()
    Image.open(io.BytesIO(content)).save(written, "JPEG", quality=70)
    return written.getvalue()
