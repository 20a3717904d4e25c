"""Checkpoints exported for a runtime, in MODELS_DIR: made once by a process of their own, loaded from there afterwards.

    MODELS_DIR/exports/<model>-<revision>/<runtime>-<version>/<part>-<precision>/
        export.json            what it is, how it agrees with float32, and whether it is used
        graph.xml, graph.bin   or graph.onnx
        tokenizer.json         of words

A folder is written beside its place and renamed into it, so it is there whole or not at all. A precision that was refused leaves its
`export.json` alone: it is not tried again. The folder may be deleted at any time; what is wanted is then made anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from model_service.preparation import Preparation, Wording
from model_service.runtimes import PACKAGES, Choice, Precision, Runtime
from model_service.weights import Checkpoint

log = structlog.get_logger()

FORMAT = 1
"""Raised when exports of an earlier release must be made anew."""
RECORD = "export.json"
ENOUGH_PICTURES = 64
"""Fewer real pictures than these say little; an export calibrated on drawn ones is made anew once there are so many."""
_LONGEST_EXPORT_S = 3600.0
_TOLD_OF_A_DEATH = 2000  # characters

Kind = Literal["images", "words", "segments"]
Origin = Literal["pictures", "drawn"]
Pooling = Literal["mean", "cls", "pooler"]


class NotExported(Exception):
    """There is no export that agrees with the checkpoint; `str` says why."""


class Agreement(BaseModel):
    """How alike answers are to those in float32, on held-out pictures or texts."""

    model_config = ConfigDict(frozen=True)
    compared: int
    mean: float
    """Of embeddings their cosine; of segments the IoU of matched masks."""
    least: float
    kept: float
    """Of embeddings the share whose nearest neighbour is still among the first ten (R@10); of segments the share that is found again."""


class YoloFacts(BaseModel):
    """What `ultralytics` must know of a segmenter's graph."""

    model_config = ConfigDict(frozen=True)
    family: str
    labels: dict[int, str]
    stride: int
    end2end: bool


class Record(BaseModel):
    """`export.json`."""

    model_config = ConfigDict(frozen=True)
    format: int = FORMAT
    source: str
    revision: str
    kind: Kind
    runtime: str
    precision: Precision
    accepted: bool
    reason: str | None = None
    agreement: Agreement | None = None
    calibrated_on: Origin | None = None
    seconds: float
    files: dict[str, int] = {}
    """Name to size in bytes."""
    dim: int | None = None
    preparation: Preparation | None = None
    wording: Wording | None = None
    yolo: YoloFacts | None = None


class Wanted(BaseModel):
    """One part of a checkpoint, for one runtime, in the first of `precisions` that agrees."""

    model_config = ConfigDict(frozen=True)
    kind: Kind
    checkpoint: Path
    source: str
    revision: str
    pooling: Pooling | None = None
    """Of words that have a checkpoint of their own."""
    runtime: Runtime
    version: str
    precisions: tuple[Precision, ...]

    @classmethod
    def of(cls, kind: Kind, checkpoint: Checkpoint, choice: Choice, pooling: Pooling | None = None) -> Wanted:
        """Words are never int8: they come one at a time, so little is gained, and every search depends on them."""
        precisions = [one for one in choice.precisions if kind != "words" or one is not Precision.INT8]
        return cls.model_validate(
            {
                "kind": kind,
                "checkpoint": checkpoint.path,
                "source": checkpoint.name,
                "revision": checkpoint.revision,
                "runtime": choice.runtime,
                "version": choice.versioned.partition(" ")[2],
                "precisions": tuple(precisions),
                "pooling": pooling,
            }
        )

    @property
    def runtime_name(self) -> str:
        return f"{PACKAGES[self.runtime]} {self.version}"

    def place(self, models_dir: Path, precision: Precision) -> Path:
        name = Checkpoint(self.checkpoint, self.source, self.revision[:16]).collection.rpartition("-")[0]
        part = self.kind if self.pooling is None else f"{self.kind}-{self.pooling}"
        return models_dir / "exports" / f"{name}-{self.revision[:16]}" / f"{self.runtime}-{self.version}" / f"{part}-{precision}"


class Order(BaseModel):
    """What the exporting process is asked for, on its command line."""

    model_config = ConfigDict(frozen=True)
    wanted: tuple[Wanted, ...]
    models_dir: Path
    images_dir: Path
    threads: int


@dataclass(frozen=True, slots=True)
class Export:
    """One that is whole and accepted."""

    folder: Path
    record: Record
    runtime: Runtime


class Exports:
    """Those in one MODELS_DIR. Blocking; called on the loading thread only."""

    def __init__(
        self,
        models_dir: Path,
        images_dir: Path,
        choice: Choice,
        *,
        can_quantise: bool,
        run: Callable[[Order], None] | None = None,
    ) -> None:
        """`run` makes what is ordered; by default a process of its own does. Raises OSError or SubprocessError."""
        self._models_dir, self._images_dir = models_dir, images_dir
        self._run = run or run_process
        self._choice = choice
        self._can_quantise = can_quantise

    def wanted(self, kind: Kind, checkpoint: Checkpoint, pooling: Pooling | None = None) -> Wanted:
        return Wanted.of(kind, checkpoint, self._choice, pooling=pooling)

    def have(self, *wanted: Wanted) -> list[Export]:
        """The best export of each, made if need be. Raises NotExported."""
        wanted = tuple(self._feasible(one) for one in wanted)
        missing = tuple(one for one in wanted if self._decided(one) is None)
        if missing:
            self._make(missing)
        return [self._accepted(one) for one in wanted]

    def _feasible(self, wanted: Wanted) -> Wanted:
        """Without int8 where it is neither there nor can be made."""
        if self._can_quantise or read(wanted.place(self._models_dir, Precision.INT8)) is not None:
            return wanted
        return wanted.model_copy(update={"precisions": tuple(one for one in wanted.precisions if one is not Precision.INT8)})

    def _decided(self, wanted: Wanted) -> tuple[Precision, Record] | None:
        """The first precision that is accepted, or the last, refused; None while one before it has not been tried."""
        for precision in wanted.precisions:
            record = read(wanted.place(self._models_dir, precision))
            if record is None or self._outdated(record):
                return None
            if record.accepted or precision is wanted.precisions[-1]:
                return precision, record
        return None

    def _outdated(self, record: Record) -> bool:
        if record.calibrated_on != "drawn" or not self._can_quantise:
            return False
        from model_service.exporting.pictures import picture_paths  # noqa: PLC0415 - seldom needed

        return len(picture_paths(self._images_dir, ENOUGH_PICTURES)) >= ENOUGH_PICTURES

    def _accepted(self, wanted: Wanted) -> Export:
        """Raises NotExported."""
        decided = self._decided(wanted)
        if decided is None:
            raise NotExported(f"the export of {wanted.source} left nothing")
        precision, record = decided
        if not record.accepted:
            raise NotExported(f"no export of {wanted.source} agrees with it: {record.reason}")
        return Export(wanted.place(self._models_dir, precision), record, wanted.runtime)

    def _make(self, wanted: Sequence[Wanted]) -> None:
        """Raises NotExported."""
        order = Order(
            wanted=tuple(wanted), models_dir=self._models_dir, images_dir=self._images_dir, threads=self._choice.threads
        )
        sources = sorted({one.source for one in wanted})
        log.info("export_started", models=sources, runtime=self._choice.versioned, detail="once; it takes a minute or two")
        try:
            self._run(order)
        except (OSError, subprocess.SubprocessError) as error:
            log.warning("export_failed", models=sources, error=repr(error))
            raise NotExported(f"the export of {', '.join(sources)} failed ({type(error).__name__})") from error
        log.info("export_finished", models=sources)


def read(folder: Path) -> Record | None:
    """The record of an export whose files are all there in their full sizes, else None."""
    try:
        record = Record.model_validate_json((folder / RECORD).read_bytes())
        whole = all((folder / name).stat().st_size == size for name, size in record.files.items())
    except (OSError, ValidationError):
        return None
    return record if whole and record.format == FORMAT else None


def run_process(order: Order, *, longest_s: float = _LONGEST_EXPORT_S) -> None:
    """Ends with the child; its standard input is a pipe that only this process holds, so that the child ends with us too.

    Raises OSError or SubprocessError: also for a child that was ended, since it took longer than `longest_s`.
    """
    command = [sys.executable, "-m", "model_service.exporting", order.model_dump_json()]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=complaints, text=True) as child,  # noqa: S603 - ours
    ):
        assert child.stdout is not None  # noqa: S101 - asked for above
        end = threading.Timer(longest_s, child.kill)
        end.start()
        try:
            for line in child.stdout:
                _tell(line)
            code = child.wait()
        finally:
            end.cancel()
        if code:
            complaints.seek(0)
            log.warning("export_died", code=code, detail=complaints.read()[-_TOLD_OF_A_DEATH:])
            raise subprocess.CalledProcessError(code, command[:3])


def _tell(line: str) -> None:
    """One line of the child is one event."""
    event = json.loads(line)
    level = log.warning if event.pop("level", "info") == "warning" else log.info
    level(event.pop("event"), **event)
