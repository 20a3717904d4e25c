"""A run on disk: `<runs_dir>/<name>` with its options, its log and its checkpoints.

options.json    what it was started with; a run goes on only with the same
log.jsonl       a line an epoch, number 0 before any training: losses, scores, rates, seconds
last.pt         everything that a resumed run needs; best.pt, epoch-NNN.pt: the weights alone
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from training.options import RunOptions
from training.pictures import UnusablePictures

_NOT_THE_MODEL = {"resume", "overwrite", "epochs", "patience", "threads", "workers", "device", "keep_epochs"}
"""Options that a resumed run may change."""


class RunExists(UnusablePictures):
    """There is a run or a profile of that name already; `str` says what to do."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """A line of the log. `loss` is the mean over the epoch's batches; epoch 0 has none."""

    number: int
    loss: float | None
    scores: dict[str, float]
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Run:
    """An open run and what it has behind it."""

    folder: Path
    epochs: list[Epoch] = field(default_factory=list)

    @classmethod
    def open(cls, options: RunOptions) -> Run:
        """Begin a run, or open it to go on. Raises RunExists."""
        folder = options.runs_dir / options.name
        run = cls(folder)
        described = json.loads(options.model_dump_json(exclude=_NOT_THE_MODEL))
        if options.resume and run.last.is_file():
            if json.loads((folder / "options.json").read_text(encoding="utf-8")) != described:
                raise RunExists(f"{folder} was started with other options: choose another --name, or --overwrite it")
            lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
            run.epochs.extend(Epoch(**json.loads(line)) for line in lines)
            return run
        for place in (folder, options.models_dir / options.name):
            if place.exists() and not options.overwrite:
                raise RunExists(f"{place} exists: choose another --name, --resume the run, or --overwrite it")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "options.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        return run

    @property
    def last(self) -> Path:
        return self.folder / "last.pt"

    @property
    def best(self) -> Path:
        return self.folder / "best.pt"

    def log(self, epoch: Epoch) -> None:
        self.epochs.append(epoch)
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(epoch)) + "\n")

    def forget_after(self, number: int) -> None:
        """Drop lines of epochs that were logged and then lost with the process, before their checkpoint was."""
        self.epochs[:] = [epoch for epoch in self.epochs if epoch.number <= number]
        lines = "".join(json.dumps(asdict(epoch)) + "\n" for epoch in self.epochs)
        _replace(self.folder / "log.jsonl", lambda place: place.write_text(lines, encoding="utf-8"))

    def keep_weights(self, model: nn.Module, name: str) -> None:
        _save(model.state_dict(), self.folder / name)

    def keep_state(self, state: Mapping[str, Any]) -> None:
        _save(state, self.last)


def seeded(seed: int, epoch: int = 0) -> None:
    """Start every generator anew. An epoch's draws follow from seed and number, so a resumed run goes on as if it had never stopped."""
    start = (seed * 1_000_003 + epoch) % 2**32
    random.seed(start)
    np.random.seed(start)  # the samplers of pytorch-metric-learning draw from it
    torch.manual_seed(start)


def load_weights(path: Path, device: str) -> Any:
    return torch.load(path, map_location=device, weights_only=True)


def _save(state: Any, path: Path) -> None:
    _replace(path, lambda place: torch.save(state, place))


def _replace(path: Path, write: Any) -> None:
    """Complete or not at all, also when the power goes."""
    place = path.with_name(f".{path.name}.part")
    write(place)
    with place.open("rb") as file:
        os.fsync(file.fileno())
    place.replace(path)
