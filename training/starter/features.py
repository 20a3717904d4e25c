"""What the frozen lower three quarters of MobileNetV2 and the teacher's classifier say of every picture, once, on disk.

Only the upper blocks and the heads are trained, so their inputs are computed once for a few random views of each picture:
16 kB a view, and an epoch of training costs a fifth of what it would from pixels.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from training.starter.photos import (
    SIDE,
    Photo,
    clothing,
    coco_held_out,
    coco_id,
    flickr,
    folder_of_photos,
    random_view,
    served_view,
)

CUT = "Conv_218"
"""The tensor between MobileNetV2's 14th and 15th block: 160 x 7 x 7."""
MAP_SHAPE = (160, 7, 7)
CLASSES = 1000
BATCH = 64


@dataclass(frozen=True)
class Cache:
    """Views of a list of photos: `maps` (views, n, 160, 7, 7) and `probs` (views, n, 1000), float16; view 0 is the served one."""

    names: list[str]
    maps: NDArray[np.float16]
    probs: NDArray[np.float16]

    @classmethod
    def load(cls, folder: Path) -> "Cache":
        names = (folder / "names.txt").read_text().splitlines()
        return cls(names, np.load(folder / "maps.npy", mmap_mode="r"), np.load(folder / "probs.npy", mmap_mode="r"))

    def part(self, rows: slice) -> "Cache":
        return Cache(self.names[rows], self.maps[:, rows], self.probs[:, rows])

    def joined(self, other: "Cache") -> "Cache":
        """Of as many views each."""
        maps = np.concatenate([self.maps, other.maps], axis=1)
        return Cache(self.names + other.names, maps, np.concatenate([self.probs, other.probs], axis=1))


def teacher(shared: Path, threads: int) -> ort.InferenceSession:
    """The ImageNet classifier, with the activations at the cut as a further output."""
    graph = onnx.load(str(shared / "models/mobilenet_v2_imagenet.onnx"))
    graph.graph.output.append(onnx.helper.make_tensor_value_info(CUT, onnx.TensorProto.FLOAT, ["N", *MAP_SHAPE]))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def write_cache(session: ort.InferenceSession, photos: list[Photo], views: int, folder: Path, seed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shape = (views, len(photos))
    maps = np.lib.format.open_memmap(folder / "maps.npy", mode="w+", dtype=np.float16, shape=(*shape, *MAP_SHAPE))
    probs = np.lib.format.open_memmap(folder / "probs.npy", mode="w+", dtype=np.float16, shape=(*shape, CLASSES))
    for view in range(views):
        for start, pixels in _batches(photos, view, seed):
            found_map, found_probs = session.run([CUT, "probs"], {"input": pixels})
            maps[view, start : start + len(pixels)] = found_map
            probs[view, start : start + len(pixels)] = found_probs[:, 1:]
        _say(f"{folder.name}: view {view + 1} of {views}")
    (folder / "names.txt").write_text("\n".join(photo.name for photo in photos))


def _batches(photos: list[Photo], view: int, seed: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
    def pixels(index: int) -> NDArray[np.float32]:
        if view == 0:
            return served_view(photos[index].jpeg, SIDE)
        return random_view(photos[index].jpeg, random.Random(f"{seed}/{view}/{photos[index].name}"))  # noqa: S311 - repeatable

    with ThreadPoolExecutor(2) as pool:
        pending = None
        for start in range(0, len(photos), BATCH):
            upcoming = [pool.submit(pixels, index) for index in range(start, min(start + BATCH, len(photos)))]
            if pending is not None:
                yield pending[0], np.stack([future.result() for future in pending[1]])
            pending = (start, upcoming)
        if pending is not None:
            yield pending[0], np.stack([future.result() for future in pending[1]])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--views", type=int, default=8, help="views of each training photo; the first is the served one")
    parser.add_argument("--unlabelled", type=Path, help="a folder of further photos without captions, for distillation")
    parser.add_argument("--coco", type=Path, help="a folder of COCO's photos, COCO_train2014_000000000009.jpg and so on")
    parser.add_argument("--held-out", type=Path, help="COCO's captions_val2017.json: its photos are kept apart, for checks")
    parser.add_argument("--only", nargs="*", help="write these caches alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    session = teacher(arguments.shared, arguments.threads)
    plans: dict[str, tuple[list[Photo], int]] = {
        "flickr-dev": (flickr(arguments.shared, "dev"), arguments.views),
        "flickr-test": (flickr(arguments.shared, "test"), 1),
        "clothing-test": (clothing(arguments.shared, "test"), 1),
        "flickr-train": (flickr(arguments.shared, "train"), arguments.views),
        "clothing-train": (clothing(arguments.shared, "train"), 2),
    }
    if arguments.unlabelled is not None:
        plans["unlabelled"] = (folder_of_photos(arguments.unlabelled), 2)
    if arguments.coco is not None:
        apart, their_captions = coco_held_out(arguments.shared, arguments.coco, arguments.held_out)
        ids = {coco_id(photo.name) for photo in apart}
        plans["coco"] = ([photo for photo in folder_of_photos(arguments.coco) if coco_id(photo.name) not in ids], arguments.views)
        plans["coco-check"] = (apart, 1)
        (arguments.work / "cache/coco-check").mkdir(parents=True, exist_ok=True)
        (arguments.work / "cache/coco-check/captions.json").write_text(json.dumps(their_captions))
    for name, (photos, views) in plans.items():
        if arguments.only and name not in arguments.only:
            continue
        began = time.perf_counter()
        write_cache(session, photos, views, arguments.work / "cache" / name, arguments.seed)
        _say(f"{name}: {len(photos)} photos, {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
