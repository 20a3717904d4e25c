"""Scores of an exported artefact, from pixels and strings, through ONNX Runtime alone.

Class names are checked twice. On Flickr8k there are no class labels: photos that the ImageNet teacher is more than 70 % sure of stand
in, labelled by the teacher. `--labelled` names a folder of class folders with pictures of objects (Caltech-101, say), labelled by people.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.evaluation.scores import Vectors
from training.starter.photos import SIDE, Photo, Split, captions, class_names, clothing, coco_held_out, flickr, served_view
from training.starter.scores import found_by_name, image_to_image, image_to_text, text_to_image, zero_shot

SURE = 0.7
CLOTHES = {
    "dress": "dress",
    "hat": "hat",
    "longsleeve": "long sleeve shirt",
    "outwear": "jacket",
    "pants": "pants",
    "shirt": "shirt",
    "shoes": "shoes",
    "shorts": "shorts",
    "skirt": "skirt",
    "t-shirt": "t-shirt",
}


class Artefact:
    """The exported model, as the service runs it."""

    def __init__(self, folder: Path, threads: int) -> None:
        description = json.loads((folder / "embedder.json").read_text())
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.side: int = description["image"]["size"]
        self.image = ort.InferenceSession(str(folder / description["image"]["file"]), options, providers=["CPUExecutionProvider"])
        self.text = ort.InferenceSession(str(folder / description["text"]["file"]), options, providers=["CPUExecutionProvider"])
        self.tokenizer = Tokenizer.from_file(str(folder / description["text"]["tokenizer"]))

    def images(self, photos: list[Photo]) -> Vectors:
        parts = []
        for start in range(0, len(photos), 64):
            pixels = np.stack([served_view(photo.jpeg, self.side) for photo in photos[start : start + 64]])
            parts.append(self.image.run(["embedding"], {"pixels": pixels})[0])
        return np.concatenate(parts)

    def texts(self, texts: list[str]) -> Vectors:
        order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        parts = []
        for start in range(0, len(order), 64):
            encoded = self.tokenizer.encode_batch([texts[index] for index in order[start : start + 64]])
            ids = np.array([e.ids for e in encoded], np.int64)
            mask = np.array([e.attention_mask for e in encoded], np.int64)
            parts.append(self.text.run(["embedding"], {"input_ids": ids, "attention_mask": mask})[0])
        found: Vectors = np.concatenate(parts)[np.argsort(order)]
        return found


def of_flickr(artefact: Artefact, shared: Path, split: Split) -> dict[str, str]:
    photos, all_captions = flickr(shared, split), captions(shared)
    texts = [caption for photo in photos for caption in all_captions[photo.name]]
    owner = np.repeat(np.arange(len(photos)), 5)
    images, vectors = artefact.images(photos), artefact.texts(texts)
    label = sure_classes(shared, photos)
    scores = {
        "text to image R@1/5/10": str(text_to_image(vectors, images, owner)),
        "image to text R@1/5/10": str(image_to_text(vectors, images, owner)),
    }
    for template in ("a photo of a {}", "{}"):
        names = artefact.texts([template.format(names[0]) for names in class_names(shared)])
        scores[f"teacher's classes, '{template}', {(label >= 0).sum()} photos, R@1/5/10"] = str(
            found_by_name(names, images, label)
        )
    return scores


def of_coco(artefact: Artefact, shared: Path, coco: Path, held_out: Path) -> dict[str, str]:
    """Photos of another kind than those of Flickr8k, with captions by people."""
    photos, all_captions = coco_held_out(shared, coco, held_out)
    texts = [all_captions[photo.name] for photo in photos]
    owner = np.repeat(np.arange(len(photos)), [len(each) for each in texts])
    images, vectors = artefact.images(photos), artefact.texts([text for each in texts for text in each])
    return {
        f"text to image, {len(photos)} photos, R@1/5/10": str(text_to_image(vectors, images, owner)),
        "image to text R@1/5/10": str(image_to_text(vectors, images, owner)),
    }


def sure_classes(shared: Path, photos: list[Photo]) -> NDArray[np.int64]:
    """The teacher's class of each photo it is sure of, -1 for the others."""
    session = ort.InferenceSession(str(shared / "models/mobilenet_v2_imagenet.onnx"), providers=["CPUExecutionProvider"])
    found = []
    for start in range(0, len(photos), 64):
        pixels = np.stack([served_view(photo.jpeg, SIDE) for photo in photos[start : start + 64]])
        found.append(session.run(["probs"], {"input": pixels})[0][:, 1:])
    probs = np.concatenate(found)
    return np.where(probs.max(1) > SURE, probs.argmax(1), -1)


def of_clothing(artefact: Artefact, shared: Path) -> dict[str, str]:
    photos = clothing(shared, "test")
    label = np.array([list(CLOTHES).index(photo.name.split("/")[1]) for photo in photos])
    images = artefact.images(photos)
    scores = {}
    for template in ("a photo of a {}", "{}"):
        found = zero_shot(artefact.texts([template.format(name) for name in CLOTHES.values()]), images, label)
        scores[f"zero-shot, '{template}', top-1/5"] = f"{found.at_1:.1f} / {found.at_5:.1f}"
    precision, first = image_to_image(images, label)
    scores["image to image mAP, R@1"] = f"{precision:.1f}, {first:.1f}"
    return scores


def of_labelled(artefact: Artefact, shared: Path, folder: Path, each: int, seed: int) -> dict[str, str]:
    """A folder of class folders, `each` pictures of each drawn by seed; underscores in folder names are spaces."""
    chance = random.Random(seed)  # noqa: S311 - repeatable
    photos: list[Photo] = []
    label: list[int] = []
    names: list[str] = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and "google" not in path.name.lower()):
        paths = sorted(place.glob("*.jpg"))
        for path in chance.sample(paths, min(each, len(paths))):
            photos.append(Photo(path.name, path.read_bytes()))
            label.append(len(names))
        names.append(place.name.replace("_", " ").lower())
    images, vectors = artefact.images(photos), artefact.texts([f"a photo of a {name}" for name in names])
    found, labels = zero_shot(vectors, images, np.array(label)), np.array(label)
    ranks = np.argsort(-(vectors @ images.T), axis=1)
    first = [(labels[row[:10]] == index).mean() * 100 for index, row in enumerate(ranks)]
    precision, nearest = image_to_image(images, labels)
    taught = np.array([name in {name.lower() for each in class_names(shared) for name in each} for name in names])
    known = np.where(taught[labels], labels, -1)
    return {
        f"{taught.sum()} of them names of ImageNet's, asked for among {len(photos)}, R@1/5/10": str(
            found_by_name(vectors, images, known)
        ),
        f"zero-shot among {len(names)} names, top-1/5": f"{found.at_1:.1f} / {found.at_5:.1f}",
        "right ones among the first 10 by name": f"{np.mean(first):.1f} %",
        f"asked for by name among {len(photos)}, R@1/5/10": str(found_by_name(vectors, images, labels)),
        "image to image mAP, R@1": f"{precision:.1f}, {nearest:.1f}",
    }


def speed(artefact: Artefact) -> dict[str, str]:
    pixels, ids = np.zeros((16, 3, artefact.side, artefact.side), np.float32), np.ones((1, 12), np.int64)
    images = _runs_a_second(artefact.image, {"pixels": pixels})
    queries = _runs_a_second(artefact.text, {"input_ids": ids, "attention_mask": ids})
    return {"images a second (batch 16)": f"{16 * images:.0f}", "queries a second (batch 1)": f"{queries:.0f}"}


def _runs_a_second(session: ort.InferenceSession, feed: dict[str, NDArray[Any]], runs: int = 10) -> float:
    session.run(None, feed)
    began = time.perf_counter()
    for _ in range(runs):
        session.run(None, feed)
    return runs / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--artefact", type=Path, required=True)
    parser.add_argument("--split", choices=["dev", "test"], default="dev")
    parser.add_argument("--labelled", type=Path)
    parser.add_argument("--coco", type=Path, help="COCO's photos, where some of them were kept apart")
    parser.add_argument("--held-out", type=Path, help="the captions file of those")
    parser.add_argument("--each", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the scores here as JSON too")
    arguments = parser.parse_args()
    artefact = Artefact(arguments.artefact, arguments.threads)
    scores = {f"flickr8k {arguments.split}": of_flickr(artefact, arguments.shared, arguments.split)}
    scores["clothing test"] = of_clothing(artefact, arguments.shared)
    if arguments.labelled is not None:
        scores[arguments.labelled.name] = of_labelled(
            artefact, arguments.shared, arguments.labelled, arguments.each, arguments.seed
        )
    if arguments.coco is not None:
        scores["coco kept apart"] = of_coco(artefact, arguments.shared, arguments.coco, arguments.held_out)
    scores["speed"] = speed(artefact)
    sys.stdout.write(json.dumps(scores, indent=2) + "\n")
    if arguments.out is not None:
        arguments.out.write_text(json.dumps(scores, indent=2) + "\n")


if __name__ == "__main__":
    main()
