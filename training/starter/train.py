"""Train the two towers together on cached activations; the best epoch on the dev split is kept."""

import argparse
import copy
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from training.starter.features import Cache
from training.starter.objective import Corpus, Weights, draw, terms
from training.starter.photos import captions, class_names
from training.starter.scores import Recall, found_by_name, image_to_text, text_to_image
from training.starter.texts import Words, vocabulary
from training.starter.towers import Original, Starter, build, embed_images, embed_texts, minilm, place_names

SURE = 0.7
"""A photo whose teacher is surer than this counts as a picture of that class in the check of class names."""


@dataclass(frozen=True)
class Options:
    epochs: int = 24
    batch: int = 256
    head_lr: float = 1e-3
    upper_lr: float = 2e-4
    text_lr: float = 1e-4
    trained_layers: int = 3
    ema: float = 0.99
    seed: int = 7


@dataclass(frozen=True)
class Scores:
    found: Recall
    back: Recall
    named: Recall

    def one(self) -> float:
        """The number that picks the epoch."""
        return self.found.at_1 + self.found.at_10 + 0.25 * self.named.at_10


def check(model: Starter, dev: Cache, corpus: Corpus) -> Scores:
    """On the dev split: text to image, image to text, and class names over photos that the teacher is sure of."""
    model.eval()
    images = embed_images(model, dev.maps[0])
    texts = embed_texts(model, corpus.tokenize, [caption for name in dev.names for caption in corpus.captions[name]])
    owner = np.repeat(np.arange(len(dev.names)), 5)
    names = embed_texts(model, corpus.tokenize, [f"a photo of a {names[0]}" for names in corpus.names])
    probs = np.asarray(dev.probs[0], np.float32)
    label = np.where(probs.max(1) > SURE, probs.argmax(1), -1)
    return Scores(text_to_image(texts, images, owner), image_to_text(texts, images, owner), found_by_name(names, images, label))


def groups(model: Starter, options: Options) -> list[dict[str, object]]:
    """New layers learn fastest, then the image tower's pretrained layers, then the text tower's."""
    tuned = [*model.image.upper.parameters(), *model.image.head.classifier.parameters()]
    pretrained = {id(parameter) for parameter in tuned}
    head = [parameter for parameter in model.image.head.parameters() if id(parameter) not in pretrained]
    head += [*model.text.project.parameters(), *model.text.widen.parameters()]
    return [
        {"params": head, "lr": options.head_lr, "weight_decay": 0.05},
        {"params": tuned, "lr": options.upper_lr, "weight_decay": 0.01},
        {"params": [model.log_scale], "lr": 5 * options.head_lr, "weight_decay": 0.0},
        {"params": list(model.text.layers.parameters()), "lr": options.text_lr, "weight_decay": 0.01},
    ]


@torch.no_grad()
def average(into: Starter, model: Starter, decay: float) -> None:
    """Polyak averaging: the average of the last hundred steps generalises better than the last of them."""
    for kept, new in zip(into.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


def train(model: Starter, corpus: Corpus, dev: Cache, *, weights: Weights, options: Options, work: Path) -> None:
    chance = random.Random(options.seed)  # noqa: S311 - draws that a seed repeats
    original = Original(model, corpus.tokenize, corpus.texts())
    optimiser = torch.optim.AdamW(groups(model, options))
    steps = options.epochs * (len(corpus.train.names) // options.batch)
    peaks = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps + 1, pct_start=0.1)
    kept, best, step, began = copy.deepcopy(model), 0.0, 0, time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        sums: dict[str, float] = {}
        order = chance.sample(range(len(corpus.train.names)), len(corpus.train.names))
        for start in range(0, len(order) - options.batch + 1, options.batch):
            batch = draw(corpus, sorted(order[start : start + options.batch]), weights, chance)
            found = terms(model, batch, corpus.tokenize, original, weights)
            optimiser.zero_grad()
            torch.autograd.backward(torch.stack(list(found.values())).sum())
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            step += 1
            average(kept, model, min(options.ema, step / (step + 10)))
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        scores = check(kept, dev, corpus)
        _report(
            epoch, time.perf_counter() - began, {name: total * options.batch / len(order) for name, total in sums.items()}, scores
        )
        if scores.one() > best:
            best = scores.one()
            torch.save(kept.state_dict(), work / "starter.pt")
            chosen = {"epoch": epoch, "options": asdict(options), "weights": asdict(weights), "dev": asdict(scores)}
            (work / "starter.json").write_text(json.dumps(chosen, indent=2) + "\n")


def _report(epoch: int, spent_s: float, losses: dict[str, float], scores: Scores) -> None:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    found = f"text to image {scores.found} | image to text {scores.back} | names {scores.named}"
    sys.stdout.write(f"epoch {epoch} {spent_s:.0f} s | {parts} | {found}\n")
    sys.stdout.flush()


def load_corpus(shared: Path, cache: Path) -> Corpus:
    """Photos without captions join when their caches exist."""
    further = [cache / name for name in ("clothing-train", "unlabelled")]
    return Corpus(
        train=Cache.load(cache / "flickr-train"),
        unlabelled=[Cache.load(path) for path in further if (path / "names.txt").exists()],
        captions=captions(shared),
        names=class_names(shared),
        words=vocabulary(minilm()),
        tokenize=Words(minilm()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="starter", help="name of the run; its checkpoint goes to WORK/RUN")
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--threads", type=int, default=2)
    for name, default in (asdict(Options()) | asdict(Weights())).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    options = Options(**{name: getattr(chosen, name) for name in asdict(Options())})
    weights = Weights(**{name: getattr(chosen, name) for name in asdict(Weights())})
    corpus = load_corpus(chosen.shared, chosen.work / "cache")
    model = build(chosen.shared, options.trained_layers)
    place_names(model, corpus.tokenize, corpus.names)
    if chosen.start is not None:
        model.load_state_dict(torch.load(chosen.start))
    work = chosen.work / chosen.run
    work.mkdir(parents=True, exist_ok=True)
    train(model, corpus, Cache.load(chosen.work / "cache/flickr-dev"), weights=weights, options=options, work=work)


if __name__ == "__main__":
    main()
