"""The oracle of the fault tests: folder, ledger and vectors, read from outside after the process has ended, must tell the same."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from core.points import Kind, image_point_id, segment_point_id
from core.vectors.edge import EdgeStore


@dataclass(frozen=True)
class Truth:
    """What the disk says: image ids (content hashes) and the paths of each."""

    paths_by_image: dict[str, set[str]]

    @classmethod
    def of(cls, folder: Path) -> Truth:
        paths: dict[str, set[str]] = {}
        for path in folder.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                image_id = hashlib.sha256(path.read_bytes()).hexdigest()
                paths.setdefault(image_id, set()).add(path.relative_to(folder).as_posix())
        return cls(paths)


def disagreements(images: Path, state: Path, *, failed: frozenset[str] = frozenset()) -> list[str]:
    """Every way in which ledger or vectors differ from the folder; `failed` are the image ids that cannot be indexed."""
    truth = Truth.of(images)
    expected = truth.paths_by_image.keys() - failed
    return [*_ledger_disagreements(truth, state, expected), *asyncio.run(_vector_disagreements(truth, state, expected))]


def _ledger_disagreements(truth: Truth, state: Path, expected: set[str]) -> list[str]:
    with sqlite3.connect(f"file:{state / 'ledger.sqlite3'}?mode=ro", uri=True) as ledger:
        states = dict(ledger.execute("SELECT image_id, state FROM images"))
        paths = set(ledger.execute("SELECT path, image_id FROM paths WHERE image_id IS NOT NULL"))
    wrong = [f"ledger: {image_id} is {states.get(image_id)}" for image_id in expected if states.get(image_id) != "indexed"]
    wrong += [f"ledger: {image_id} is not in the folder" for image_id in states.keys() - truth.paths_by_image.keys()]
    on_disk = {(path, image_id) for image_id, here in truth.paths_by_image.items() for path in here}
    wrong += [f"ledger: {path} differs from the folder" for path, _ in paths ^ on_disk]
    return wrong


async def _vector_disagreements(truth: Truth, state: Path, expected: set[str]) -> list[str]:
    wrong: list[str] = []
    async with EdgeStore(state / "vectors") as store:
        collections = await store.collections()
        if not collections:
            wrong.append("vectors: there is no collection")
        for collection in collections:
            points = {record.id: record.payload async for record in store.scroll(collection)}
            wanted: set[str] = set()
            for image_id in expected:
                point = points.get(image_point_id(image_id))
                if point is None:
                    wrong.append(f"{collection}: {image_id} has no point")
                    continue
                wanted |= {image_point_id(image_id), *(segment_point_id(image_id, n) for n in range(point["segments"]))}
                if set(point["paths"]) != truth.paths_by_image[image_id]:
                    wrong.append(f"{collection}: {image_id} lies at {point['paths']}")
            wrong += [f"{collection}: point {point_id} is missing" for point_id in wanted - points.keys()]
            wrong += [
                f"{collection}: {Kind(points[point_id]['kind'])} of {points[point_id]['image_id']} belongs to nothing"
                for point_id in points.keys() - wanted
            ]
    return wrong
