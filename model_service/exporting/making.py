"""One part of a checkpoint, made for a runtime: written, compared with float32, and put in its place or refused."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from core.decode import Pixels
from core.files import sync, sync_tree
from model_service.exporting import agreement, runtime_files
from model_service.exports import RECORD, Agreement, Origin, Record, Wanted, read
from model_service.graphs import Graph, load, load_onnx, load_openvino
from model_service.runtimes import Precision, Runtime
from model_service.towers import normalised

_STALE_S = 3600.0
_PARTIAL = ".partial-"


class Tell(Protocol):
    """An event to the log of whoever waits."""

    def __call__(self, event: str, *, level: str = "info", **fields: object) -> None: ...


@dataclass(frozen=True, slots=True)
class Held:
    """Pictures that calibrate, and others that are compared on."""

    calibrating: Sequence[Pixels]
    comparing: Sequence[Pixels]
    origin: Origin

    @classmethod
    def of(cls, pictures: Sequence[Pixels], origin: Origin) -> Held:
        return cls(pictures[::2], pictures[1::2], origin)


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where exports are made, and with what."""

    models_dir: Path
    held: Held
    threads: int
    tell: Tell


class Part(ABC):
    """What is special to pictures, words and segments; opened once, for all precisions."""

    transformer = False
    exact: str | None = None

    @abstractmethod
    def write_source(self, path: Path) -> None:
        """The ONNX file in float32."""

    @abstractmethod
    def check(self, exact: Graph) -> Agreement:
        """Of the float32 graph with torch."""

    @abstractmethod
    def samples(self, exact: Graph) -> Sequence[Mapping[str, NDArray[Any]]]:
        """Inputs to calibrate on."""

    @abstractmethod
    def compare(self, exact: Graph, other: Graph) -> Agreement: ...

    @abstractmethod
    def facts(self, folder: Path, exact: Graph) -> dict[str, Any]:
        """Further fields of the record; may write files."""


def make(wanted: Wanted, part: Part, workshop: Workshop) -> None:
    """Until a precision is accepted. Raises OSError; whatever else fails is recorded as a refusal, so that it isn't tried at each start."""
    beside = wanted.place(workshop.models_dir, Precision.FP32).parent
    beside.mkdir(parents=True, exist_ok=True)
    _swept(beside)
    with tempfile.TemporaryDirectory(dir=beside, prefix=_PARTIAL) as place:
        making = _Making(wanted, part, workshop, Path(place))
        try:
            refused = making.source()
        except (OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - tracing a model raises anything
            refused = f"it cannot be exported ({type(error).__name__})"
            workshop.tell("export_step_failed", level="warning", part=wanted.kind, error=repr(error)[:500])
        for precision in wanted.precisions:
            if refused is not None:
                making.put(precision, making.record(precision, reason=refused), None)
            elif making.one(precision):
                return


class _Making:
    """The steps of one part, in a folder that goes when they are done."""

    def __init__(self, wanted: Wanted, part: Part, workshop: Workshop, place: Path) -> None:
        self._wanted, self._part, self._place = wanted, part, place
        self._models_dir, self._origin = workshop.models_dir, workshop.held.origin
        self._threads, self._tell = workshop.threads, workshop.tell
        self._started = time.monotonic()
        self._file = place / "source" / "source.onnx"
        self._exact: Graph | None = None
        self._checked: Agreement | None = None

    def source(self) -> str | None:
        """Write the float32 graph. Returns why it is of no use, if it is of none."""
        self._file.parent.mkdir()
        self._part.write_source(self._file)
        if self._wanted.runtime is Runtime.OPENVINO:
            self._exact = load_openvino(self._file, Precision.FP32, threads=self._threads)
        else:
            self._exact = load_onnx(self._file, threads=self._threads)
        self._tell("export_traced", part=self._wanted.kind, model=self._wanted.source)
        self._checked = self._part.check(self._exact)
        return agreement.difference(self._wanted.kind, self._checked)

    def one(self, precision: Precision) -> bool:
        """Whether this precision is there now and may be used. Raises OSError."""
        assert self._exact is not None and self._checked is not None  # noqa: S101, PT018 - `source` came first
        folder = Path(tempfile.mkdtemp(dir=self._place))
        compared = self._checked
        try:
            self._write(folder, precision)
            if precision is not Precision.FP32:
                graph = load(folder, self._wanted.runtime, precision, threads=self._threads)
                compared = self._part.compare(self._exact, graph)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - a quantiser raises anything
            reason = f"it failed ({type(error).__name__})"
            self._tell(
                "export_step_failed", level="warning", part=self._wanted.kind, precision=precision, error=repr(error)[:500]
            )
            self.put(precision, self.record(precision, reason=reason), None)
            return False
        refused = None if precision is Precision.FP32 else agreement.refusal(self._wanted.kind, compared)
        record = self.record(precision, reason=refused, agreement=compared)
        if refused is not None:
            self._tell("export_refused", level="warning", part=self._wanted.kind, precision=precision, detail=refused)
            self.put(precision, record, None)
            return False
        facts = self._part.facts(folder, self._exact)
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        self.put(precision, record.model_copy(update={"files": files, **facts}), folder)
        self._tell(
            "export_accepted",
            part=self._wanted.kind,
            precision=precision,
            mean=round(compared.mean, 5),
            kept=round(compared.kept, 4),
            seconds=round(record.seconds, 1),
        )
        return True

    def _write(self, folder: Path, precision: Precision) -> None:
        assert self._exact is not None  # noqa: S101 - as above
        samples = self._part.samples(self._exact) if precision is Precision.INT8 else []
        told = max(1, len(samples) // 4)

        def progress(run: int) -> None:
            if run % told == 0:
                self._tell("export_calibrating", part=self._wanted.kind, pictures=(run - 1) % len(samples) + 1, of=len(samples))

        runtime_files.write(
            self._file,
            folder,
            self._wanted.runtime,
            precision,
            samples=samples,
            transformer=self._part.transformer,
            exact=self._part.exact,
            progress=progress,
        )

    def record(self, precision: Precision, *, reason: str | None, agreement: Agreement | None = None) -> Record:
        return Record(
            source=self._wanted.source,
            revision=self._wanted.revision,
            kind=self._wanted.kind,
            runtime=self._wanted.runtime_name,
            precision=precision,
            accepted=reason is None,
            reason=reason,
            agreement=agreement,
            calibrated_on=self._origin if precision is Precision.INT8 else None,
            seconds=time.monotonic() - self._started,
        )

    def put(self, precision: Precision, record: Record, folder: Path | None) -> None:
        """Write the record, then rename the folder into its place, or one with the record alone. Raises OSError.

        Others may share MODELS_DIR, and make the same: what is there already stays, since somebody may be about to load it.
        """
        folder = folder or Path(tempfile.mkdtemp(dir=self._place))
        (folder / RECORD).write_text(record.model_dump_json(indent=2, exclude_none=True), encoding="utf-8")
        folder.chmod(0o755)
        sync_tree(folder)
        target = self._wanted.place(self._models_dir, precision)
        there = read(target)
        if there is not None and there.calibrated_on == record.calibrated_on:
            return
        with suppress(FileNotFoundError):  # of an earlier release, or calibrated on less
            target.rename(self._place / f"old-{precision}")
        try:
            folder.rename(target)
        except OSError:
            if read(target) is None:  # else another was quicker by a moment
                raise
        sync([target.parent])


def embeddings_compared(exact: Graph, other: Graph, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> Agreement:
    return agreement.of_embeddings(*(_embedded(graph, inputs) for graph in (exact, other)))


def _embedded(graph: Graph, inputs: Sequence[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
    return normalised(np.concatenate([graph(one)[0] for one in inputs]))


def _swept(folder: Path) -> None:
    """What a killed export left."""
    for left in folder.glob(f"{_PARTIAL}*"):
        if time.time() - left.stat().st_mtime > _STALE_S:
            shutil.rmtree(left, ignore_errors=True)
