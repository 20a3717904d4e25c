"""What a detector sees in the photos: YOLOv8n's 80 kinds of object, once, on disk.

Captions name few of the things in a photo. These names are pairs that cost no one's time.
"""

import argparse
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from training.starter.photos import Photo, flickr, folder_of_photos

SIDE = 352
SURE = 0.35
FEW = ("", "", "two", "three", "four")
IRREGULAR = {"person": "people", "sheep": "sheep", "skis": "skis", "scissors": "scissors", "mouse": "mice", "knife": "knives"}
Found = dict[str, int]
"""How many of each kind."""


@dataclass(frozen=True)
class Objects:
    names: list[str]
    sureness: dict[str, dict[int, float]]
    """Of the surest of each kind, by the photo's name."""
    found: dict[str, Found]

    @classmethod
    def load(cls, path: Path) -> "Objects":
        stored = json.loads(path.read_text())
        names: list[str] = stored["names"]
        sureness: dict[str, dict[int, float]] = {}
        found: dict[str, Found] = {}
        for photo, boxes in stored["boxes"].items():
            kept = [(kind, sure) for kind, sure in boxes if sure > SURE]
            sureness[photo] = {kind: max(s for k, s in kept if k == kind) for kind, _ in kept}
            found[photo] = {names[kind]: sum(k == kind for k, _ in kept) for kind, _ in kept}
        return cls(names, sureness, found)

    def present(self, photos: list[str]) -> Tensor:
        """How sure the detector is of each kind in each photo (n, kinds); 0 where it has not looked."""
        table = torch.zeros(len(photos), len(self.names))
        for row, photo in enumerate(photos):
            for kind, sure in self.sureness.get(photo, {}).items():
                table[row, kind] = sure
        return table


def spoken(found: Found) -> str:
    """ "two dogs, a frisbee and people", or nothing."""
    parts = [_counted(name, count) for name, count in found.items()]
    return " and ".join([part for part in (", ".join(parts[:-1]), parts[-1]) if part]) if parts else ""


def _counted(name: str, count: int) -> str:
    if count == 1:
        article = "an" if name[0] in "aeiou" else "a"
        return name if name in ("skis", "scissors") else f"{article} {name}"
    several = IRREGULAR.get(name, name + ("es" if name.endswith(("s", "ch", "sh")) else "s"))
    return f"{FEW[count]} {several}" if count < len(FEW) else several


def look(detector: Path, photos: list[Photo], threads: int) -> dict[str, object]:
    """Boxes as (kind, sureness), the surest first."""
    from ultralytics import YOLO  # noqa: PLC0415 - slow to import, and only this needs it

    torch.set_num_threads(threads)
    model, boxes = YOLO(str(detector)), {}
    for start in range(0, len(photos), 32):
        part = photos[start : start + 32]
        images = [Image.open(io.BytesIO(photo.jpeg)).convert("RGB") for photo in part]
        for photo, result in zip(part, model.predict(images, imgsz=SIDE, conf=SURE, verbose=False), strict=True):
            boxes[photo.name] = [(int(kind), float(sure)) for kind, sure in zip(result.boxes.cls, result.boxes.conf, strict=True)]
    return {"names": list(model.names.values()), "boxes": boxes}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--coco", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    photos = flickr(arguments.shared, "train") + folder_of_photos(arguments.coco)
    stored = look(arguments.shared / "models/yolov8n-seg.pt", photos, arguments.threads)
    arguments.work.mkdir(parents=True, exist_ok=True)
    (arguments.work / "objects.json").write_text(json.dumps(stored))
    sys.stdout.write(f"objects: {len(photos)} photos\n")


if __name__ == "__main__":
    main()
