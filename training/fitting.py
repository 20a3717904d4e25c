"""The loop that every training shares: epochs of batches, a score that picks the best, and a run that can stop at any moment."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from tqdm import tqdm

from training.options import RunOptions
from training.pictures import UnusablePictures
from training.runs import Epoch, Run, load_weights, seeded
from training.towers import set_training

B = TypeVar("B")
_LONGEST_GRADIENT = 5.0


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Where tensors live and what products are made in."""

    device: str
    autocast: torch.dtype | None

    def context(self) -> torch.autocast:
        return torch.autocast(self.device.partition(":")[0], self.autocast or torch.bfloat16, enabled=self.autocast is not None)


@dataclass(frozen=True, slots=True)
class Fitting(Generic[B]):
    """What a training brings to the loop."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    schedule: LRScheduler | ReduceLROnPlateau
    """A plateau is asked after each epoch, any other after each step."""
    batches: Callable[[int], Iterable[B]]
    """The batches of an epoch; one with a length gets a bar that knows its end."""
    loss: Callable[[B], Tensor]
    scores: Callable[[], dict[str, float]]
    """Of the validation pictures, in per cent."""
    watched: str
    """The score that picks the best epoch; higher is better."""
    freeze_norms: bool


def arithmetic(options: RunOptions) -> Arithmetic:
    """Choose device and precision, and make torch deterministic where it can be. Raises UnusablePictures."""
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UnusablePictures("this machine has no CUDA that torch can use: choose --device auto")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=device != "cpu")
    wanted = options.precision
    if wanted == "auto":
        wanted = "fp32" if not device.startswith("cuda") else "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    return Arithmetic(device, {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[wanted])


def fit(fitting: Fitting[B], run: Run, options: RunOptions, numbers: Arithmetic) -> int:
    """Train until `epochs` or `patience` is reached; the model then holds its best weights. Writes the run. Returns the best epoch."""
    scaler = torch.amp.GradScaler(numbers.device, enabled=numbers.autocast is torch.float16)
    state = _Progress()
    if run.last.is_file():
        state.restore(fitting, scaler, load_weights(run.last, numbers.device))
        run.forget_after(state.epoch)
    else:
        state.judge(_logged(run, fitting, 0, None, time.perf_counter()).scores[fitting.watched])
        run.keep_weights(fitting.model, run.best.name)
    while state.epoch < options.epochs and not (options.patience and state.stale >= options.patience):
        began = time.perf_counter()
        seeded(options.seed, state.epoch + 1)
        set_training(fitting.model, freeze_norms=fitting.freeze_norms)
        loss = _epoch(fitting, state.epoch + 1, options.epochs, scaler, numbers)
        state.epoch += 1
        epoch = _logged(run, fitting, state.epoch, loss, began)
        if isinstance(fitting.schedule, ReduceLROnPlateau):
            fitting.schedule.step(epoch.scores[fitting.watched])
        if state.judge(epoch.scores[fitting.watched]):
            run.keep_weights(fitting.model, run.best.name)
        if options.keep_epochs:
            run.keep_weights(fitting.model, f"epoch-{state.epoch:03}.pt")
        run.keep_state(state.stored(fitting, scaler))
    fitting.model.load_state_dict(load_weights(run.best, numbers.device))
    fitting.model.eval()
    return state.best_epoch


@dataclass(slots=True)
class _Progress:
    """How far a run is, and which of its epochs was the best."""

    epoch: int = 0
    best: float = -math.inf
    best_epoch: int = 0

    @property
    def stale(self) -> int:
        return self.epoch - self.best_epoch

    def judge(self, score: float) -> bool:
        """Whether that is the best so far."""
        if score > self.best:
            self.best, self.best_epoch = score, self.epoch
        return self.best_epoch == self.epoch

    def stored(self, fitting: Fitting[Any], scaler: torch.amp.GradScaler) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "model": fitting.model.state_dict(),
            "optimiser": fitting.optimiser.state_dict(),
            "schedule": fitting.schedule.state_dict(),
            "scaler": scaler.state_dict(),
        }

    def restore(self, fitting: Fitting[Any], scaler: torch.amp.GradScaler, stored: dict[str, Any]) -> None:
        self.epoch, self.best, self.best_epoch = stored["epoch"], stored["best"], stored["best_epoch"]
        fitting.model.load_state_dict(stored["model"])
        fitting.optimiser.load_state_dict(stored["optimiser"])
        fitting.schedule.load_state_dict(stored["schedule"])
        scaler.load_state_dict(stored["scaler"])


def _epoch(fitting: Fitting[B], number: int, of: int, scaler: torch.amp.GradScaler, numbers: Arithmetic) -> float:
    """One epoch. Returns the mean loss."""
    total, count = 0.0, 0
    with tqdm(fitting.batches(number), desc=f"epoch {number}/{of}", unit="batch", leave=False, disable=None) as bar:
        for batch in bar:
            fitting.optimiser.zero_grad()
            with numbers.context():
                loss = fitting.loss(batch)
            torch.autograd.backward(scaler.scale(loss))
            scaler.unscale_(fitting.optimiser)
            nn.utils.clip_grad_norm_(fitting.model.parameters(), _LONGEST_GRADIENT)
            scaler.step(fitting.optimiser)
            scaler.update()
            if not isinstance(fitting.schedule, ReduceLROnPlateau):
                fitting.schedule.step()
            total, count = total + float(loss.detach()), count + 1
            bar.set_postfix(loss=f"{total / count:.4f}")
    return total / max(1, count)


def _logged(run: Run, fitting: Fitting[Any], number: int, loss: float | None, began: float) -> Epoch:
    """Measure, log and say how it went."""
    rate = max(group["lr"] for group in fitting.optimiser.param_groups)
    fitting.model.eval()
    with torch.inference_mode():
        scores = fitting.scores()
    epoch = Epoch(number, loss, scores, rate, time.perf_counter() - began)
    run.log(epoch)
    parts = [f"epoch {number:>3}", f"loss {loss:.4f}" if loss is not None else "untrained  "]
    parts += [f"{name} {score:.1f}" for name, score in scores.items()]
    sys.stdout.write("  ".join([*parts, f"{epoch.seconds:.0f} s"]) + "\n")
    sys.stdout.flush()
    return epoch
