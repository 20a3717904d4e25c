"""Everything that a user does, at random, on a product that may end at any moment; and what it promised before it did."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.agreement import Truth
from tests.faults.rig import Rig, some_picture


@dataclass
class Promises:
    """What was answered with success: pictures that were taken in (and not deleted since), and ratings that were kept."""

    uploaded: set[str] = field(default_factory=set)
    rated: set[str] = field(default_factory=set)

    def broken(self, rig: Rig) -> list[str]:
        held = Truth.of(rig.images).paths_by_image.keys()
        with sqlite3.connect(f"file:{rig.state / 'feedback.sqlite'}?mode=ro", uri=True) as feedback:
            kept = {row[0] for row in feedback.execute("SELECT feedback_id FROM feedback")}
        feedback.close()
        return [f"upload {one} is lost" for one in self.uploaded - held] + [f"rating {one} is lost" for one in self.rated - kept]


class Workload:
    """One step at a time; none of them minds that nobody answers."""

    def __init__(self, rig: Rig, rng: random.Random) -> None:
        self._rig = rig
        self._rng = rng
        self._number = 0
        self.promises = Promises()

    def step(self, *names: str) -> str:
        """One of these, or any. Returns which."""
        name = self._rng.choice(names or STEPS)
        with suppress(httpx.TransportError):
            getattr(self, name)()
        return name

    def all_steps(self) -> None:
        for name in self._rng.sample(STEPS, len(STEPS)):
            self.step(name)

    # --- in the folder

    def add(self) -> None:
        self._rig.add(self._fresh(), some_picture(self._rng))

    def copy(self) -> None:
        if (file := self._any()) is not None:
            shutil.copyfile(file, self._place(self._fresh()))

    def rename(self) -> None:
        if (file := self._any()) is not None:
            file.rename(self._place(self._fresh()))

    def rename_case(self) -> None:
        if (file := self._any()) is not None and not (swapped := file.with_name(file.name.swapcase())).exists():
            file.rename(swapped)

    def replace(self) -> None:
        if (file := self._any()) is not None:
            self._forget(file)
            file.write_bytes(some_picture(self._rng))

    def delete(self) -> None:
        if (file := self._any()) is not None:
            self._forget(file)
            file.unlink()

    def move_folder(self) -> None:
        folders = sorted(path for path in self._rig.images.iterdir() if path.is_dir())
        if folders:
            self._number += 1
            self._rng.choice(folders).rename(self._rig.images / f"folder {self._number}")

    # --- over HTTP

    def upload(self) -> None:
        answer = self._rig.upload(some_picture(self._rng))
        if answer.status_code == 202:
            self.promises.uploaded.add(answer.json()["image_id"])

    def delete_image(self) -> None:
        found = self._search()
        if found:
            self.promises.uploaded.discard(found[0]["image_id"])
            self._rig.http.delete(f"/api/v1/images/{found[0]['image_id']}")

    def look(self) -> None:
        for match in self._search()[:3]:
            self._rig.http.get(
                f"/api/v1/images/{match['image_id']}/thumbnail", params={"size": self._rng.choice((128, 256, 512))}
            )

    def rate(self) -> None:
        for match in self._search()[:2]:
            answer = self._rig.http.post("/api/v1/create-feedback", json={"user_feedback": 7, "jwt": match["jwt"]})
            if answer.status_code == 201:
                self.promises.rated.add(answer.json()["feedback_id"])

    def _search(self) -> list[dict[str, str]]:
        answer = self._rig.http.post("/api/v1/search-image", json={"text": f"words {self._rng.random()}", "top_k": 5})
        matches: list[dict[str, str]] = answer.json()["matches"] if answer.status_code == 200 else []
        self._rng.shuffle(matches)
        return matches

    # --- files

    def _fresh(self) -> str:
        self._number += 1
        return f"{self._rng.choice(('', 'a/', 'b/', 'b/c/'))}{self._number}-{self._rng.randrange(10**6)}.jpg"

    def _place(self, path: str) -> Path:
        target = self._rig.images / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _any(self) -> Path | None:
        files = sorted(path for path in self._rig.images.rglob("*.[jJ]*") if path.is_file() and not path.name.startswith("."))
        return self._rng.choice(files) if files else None

    def _forget(self, file: Path) -> None:
        """What lies there may be gone from now on, and nobody is to blame."""
        content = Truth.of(file.parent).paths_by_image
        self.promises.uploaded -= {one for one, names in content.items() if file.name in names}


STEPS = (
    "add",
    "copy",
    "rename",
    "rename_case",
    "replace",
    "delete",
    "move_folder",
    "upload",
    "delete_image",
    "look",
    "rate",
)
