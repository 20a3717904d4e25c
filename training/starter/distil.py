"""One image tower learns what several say together, all of them taught beside the same text tower.

Towers that began from other seeds err in other ways, and the mean of their vectors finds more than any of them does. One tower
learns most of that, as it sees every picture in many views, mixed in pairs, and is told what the others make of just that
(Beyer et al. 2022: a patient and consistent teacher).

    python -m training.starter.distil --shared ../shared --work $WORK --runs first second third --run distilled
"""

import copy
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from training.starter.features import Cache
from training.starter.losses import taught
from training.starter.model import ImageTower
from training.starter.scores import text_to_image
from training.starter.towers import Starter, as_batch, build
from training.starter.train import average, later_step, load_checks, started, vectors

BATCH = 256
MIXED = 0.5
"""So many steps show two pictures at once."""
TEXTS = 2048
DROP = 0.05
RATES = (7e-4, 3e-4)
"""Peak rates of the head and of the pretrained layers."""


def together(teachers: list[ImageTower], maps: Tensor) -> Tensor:
    """The direction of the mean of their vectors (n, DIM)."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return functional.normalize(torch.stack([tower(maps).float() for tower in teachers]).sum(0), dim=1)


def views(caches: list[Cache], chance: np.random.Generator) -> Tensor:
    """A view each of pictures of every kind, mirrored half the time, and half the time each mixed with another."""
    counts = np.array([len(cache.names) for cache in caches])
    kinds = chance.choice(len(caches), BATCH, p=counts / counts.sum())
    drawn = [(caches[kind], chance.integers(len(caches[kind].maps)), chance.integers(counts[kind])) for kind in kinds]
    maps = np.stack([cache.maps[view, row] for cache, view, row in drawn])
    shown = as_batch(maps[..., ::-1] if chance.random() < 0.5 else maps)
    if chance.random() < MIXED:
        share = torch.from_numpy(chance.uniform(0, 1, (BATCH, 1, 1, 1)).astype(np.float32))
        shown = share * shown + (1 - share) * shown.flip(0)
    return shown.contiguous(memory_format=torch.channels_last)


def distil(model: Starter, teachers: list[ImageTower], caches: list[Cache], texts: Tensor, *, steps: int, seed: int) -> Starter:
    """Returns the moving average of what `model` becomes."""
    chance, kept = np.random.default_rng(seed), copy.deepcopy(model)
    student = model.image
    for module in student.head.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = DROP
    groups = [{"params": student.new(), "lr": RATES[0]}, {"params": student.pretrained(), "lr": RATES[1]}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, list(RATES), total_steps=steps + 1, pct_start=0.1)
    student.train()
    began = time.perf_counter()
    for step in range(1, steps + 1):
        maps = views(caches, chance)
        with torch.autocast("cpu", torch.bfloat16):
            ours = student(maps).float()
        drawn = torch.from_numpy(chance.choice(len(texts), min(TEXTS, len(texts)), replace=False))
        found = taught(ours, together(teachers, maps), texts[drawn])
        optimiser.zero_grad()
        torch.autograd.backward(found)
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        average(kept, model, min(0.99, step / (step + 10)))
        if step % 20 == 0:
            sys.stdout.write(f"step {step} of {steps}, {time.perf_counter() - began:.0f} s, loss {float(found.detach()):.3f}\n")
            sys.stdout.flush()
    return kept.eval()


def taught_together(shared: Path, work: Path, runs: list[str], trained_layers: int) -> list[Starter]:
    """Raises ValueError where their text towers are not the same."""
    models = []
    for run in runs:
        model = build(shared, trained_layers)
        model.load_state_dict(torch.load(work / run / "starter.pt"))
        models.append(model.eval())
    first = models[0].text.state_dict()
    for run, model in zip(runs, models, strict=True):
        if any(not torch.equal(value, first[name]) for name, value in model.text.state_dict().items()):
            raise ValueError(f"{run} was taught beside another text tower than {runs[0]}")
    return models


def main() -> None:
    parser = later_step(__doc__)
    parser.add_argument("--runs", nargs="+", required=True, help="the teachers")
    parser.add_argument("--start", help="the run that the student goes on from, the first teacher where none is named")
    parser.add_argument("--steps", type=int, default=620)
    arguments = parser.parse_args()
    corpus = started(arguments)
    runs = [*arguments.runs, arguments.start or arguments.runs[0]]
    *others, student = taught_together(arguments.shared, arguments.work, runs, arguments.trained_layers)
    spoken = sorted(
        {text for source in corpus.captioned for text in source.texts()} | {name for each in corpus.names for name in each}
    )
    with torch.no_grad():
        texts = student.texts(corpus.tokenize, spoken, part=250)
    teachers = [model.image for model in others]
    student = distil(student, teachers, corpus.photos(), texts, steps=arguments.steps, seed=arguments.seed)
    folder = arguments.work / arguments.run
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(student.state_dict(), folder / "starter.pt")
    dev, _ = load_checks(arguments.shared, arguments.work, arguments.dev_trained)
    images, captions, owner = vectors(student, lambda each: student.texts(corpus.tokenize, each).detach(), dev)
    sys.stdout.write(f"text to image {text_to_image(captions, images, owner)}\n")


if __name__ == "__main__":
    main()
