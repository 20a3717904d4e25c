"""Train the two towers together on cached activations; the best epoch on the dev split is kept."""

import argparse
import copy
import json
import random
import sys
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.evaluation.scores import Vectors
from training.starter.features import Cache
from training.starter.objective import Captioned, Corpus, Weights, draw, terms
from training.starter.objects import Objects
from training.starter.photos import captions, class_names, coco_captions, coco_id
from training.starter.scores import Recall, found_by_name, image_to_text, text_to_image
from training.starter.statements import statements
from training.starter.texts import Words, vocabulary
from training.starter.towers import Embed, Original, Settled, Starter, build, embed_images, minilm, place_names

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
    dev_trained: int = 0
    """So many of dev's photos are trained on; the others choose the epoch."""
    settled: bool = False
    """The text tower that `--start` names stands still, and an image tower is taught anew beside it; steps cost a quarter."""
    seed: int = 7


@dataclass(frozen=True)
class Scores:
    found: Recall
    back: Recall
    named: Recall
    coco: Recall | None
    """Text to image on COCO's photos kept apart, where there are some. It picks nothing."""

    def one(self) -> float:
        """The number that picks the epoch."""
        return self.found.at_1 + self.found.at_10 + 0.25 * self.named.at_10


@torch.no_grad()
def check(model: Starter, embed: Embed, dev: Captioned, apart: Captioned | None, classes: list[list[str]]) -> Scores:
    """On the dev split: text to image, image to text, and class names over photos that the teacher is sure of."""
    model.eval()
    images, texts, owner = vectors(model, embed, dev)
    names = embed([f"a photo of a {names[0]}" for names in classes]).numpy()
    probs = np.asarray(dev.photos.probs[0], np.float32)
    label = np.where(probs.max(1) > SURE, probs.argmax(1), -1)
    named = found_by_name(names, images, label)
    found, back = text_to_image(texts, images, owner), image_to_text(texts, images, owner)
    if apart is None:
        return Scores(found, back, named, None)
    images, texts, owner = vectors(model, embed, apart)
    return Scores(found, back, named, text_to_image(texts, images, owner))


def vectors(model: Starter, embed: Embed, captioned: Captioned) -> tuple[Vectors, Vectors, NDArray[np.int64]]:
    """Of the photos as served, of their captions, and each caption's photo."""
    captions = [captioned.captions[name] for name in captioned.photos.names]
    owner = np.repeat(np.arange(len(captions)), [len(each) for each in captions])
    texts = embed([caption for each in captions for caption in each]).numpy()
    return embed_images(model, captioned.photos.maps[0]), texts, owner


def groups(model: Starter, options: Options) -> list[dict[str, object]]:
    """New layers learn fastest, then the image tower's pretrained layers, then the text tower's."""
    head = model.image.new()
    layers: list[nn.Parameter] = []
    if not options.settled:
        head += [*model.text.project.parameters(), *model.text.widen.parameters()]
        layers += model.text.layers.parameters()
    return [
        {"params": head, "lr": options.head_lr, "weight_decay": 0.05},
        {"params": model.image.pretrained(), "lr": options.upper_lr, "weight_decay": 0.01},
        {"params": [model.log_scale], "lr": 5 * options.head_lr, "weight_decay": 0.0},
        *([{"params": layers, "lr": options.text_lr, "weight_decay": 0.01}] if layers else []),
    ]


@torch.no_grad()
def average(into: Starter, model: Starter, decay: float) -> None:
    """Polyak averaging: the average of the last hundred steps generalises better than the last of them."""
    for kept, new in zip(into.parameters(), model.parameters(), strict=True):
        if new.requires_grad:
            kept.lerp_(new, 1 - decay)


def train(
    model: Starter,
    corpus: Corpus,
    original: Original,
    checks: tuple[Captioned, Captioned | None],
    *,
    weights: Weights,
    options: Options,
    work: Path,
) -> None:
    chance = random.Random(options.seed)  # noqa: S311 - draws that a seed repeats
    kept = copy.deepcopy(model)
    embed, embed_kept = embeds(model, kept, corpus.tokenize, settled=options.settled)
    optimiser = torch.optim.AdamW(groups(model, options))
    steps = options.epochs * len(batches(corpus, options.batch, chance))
    peaks = [group["lr"] for group in optimiser.param_groups]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, peaks, total_steps=steps + 1, pct_start=0.1)
    best, step, began = 0.0, 0, time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        model.train()
        sums: dict[str, float] = {}
        for source, rows in batches(corpus, options.batch, chance):
            batch = draw(corpus, source, rows, weights, chance)
            found = terms(model, batch, embed, original, weights)
            optimiser.zero_grad()
            torch.autograd.backward(torch.stack(list(found.values())).sum())
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            step += 1
            average(kept, model, min(options.ema, step / (step + 10)))
            if step % 10 == 0:
                _say(f"step {step} of {steps}, {time.perf_counter() - began:.0f} s")
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) * options.epochs / steps
        scores = check(kept, embed_kept, *checks, corpus.names)
        _report(epoch, time.perf_counter() - began, sums, scores)
        torch.save(kept.state_dict(), work / "last.pt")
        if scores.one() > best:
            best = scores.one()
            torch.save(kept.state_dict(), work / "starter.pt")
            chosen = {"epoch": epoch, "options": asdict(options), "weights": asdict(weights), "dev": asdict(scores)}
            (work / "starter.json").write_text(json.dumps(chosen, indent=2) + "\n")


def embeds(model: Starter, kept: Starter, tokenize: Words, *, settled: bool) -> tuple[Embed, Embed]:
    if settled:
        texts = Settled(kept, tokenize)  # both models' texts are the same
        return texts, texts
    return partial(model.texts, tokenize), partial(kept.texts, tokenize)


def batches(corpus: Corpus, size: int, chance: random.Random) -> list[tuple[Captioned, list[int]]]:
    """One epoch, each batch of one source: a photo of another kind is no hard negative."""
    found = []
    for source in corpus.captioned:
        rows = source.rows()
        order = chance.sample(rows, len(rows))
        found += [(source, sorted(order[start : start + size])) for start in range(0, len(order) - size + 1, size)]
    chance.shuffle(found)
    return found


def _report(epoch: int, spent_s: float, losses: dict[str, float], scores: Scores) -> None:
    parts = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
    found = f"text to image {scores.found} | image to text {scores.back} | names {scores.named} | coco {scores.coco}"
    _say(f"epoch {epoch} {spent_s:.0f} s | {parts} | {found}")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def load_corpus(shared: Path, work: Path, dev_trained: int) -> Corpus:
    """COCO and photos without captions join when their caches exist, and the first photos of dev when they are asked for."""
    cache, objects = work / "cache", work / "objects.json"
    photos = Cache.load(cache / "flickr-train")
    if dev_trained:
        photos = photos.joined(Cache.load(cache / "flickr-dev").part(slice(dev_trained)))
    further = {name: Cache.load(cache / name) for name in ("coco", "clothing-train", "unlabelled") if (cache / name).exists()}
    captioned = [Captioned(photos, captions(shared))]
    if "coco" in further:
        captioned.append(Captioned(further["coco"], by_photo(further["coco"], work)))
    return Corpus(
        captioned=captioned,
        unlabelled=list(further.values()),
        objects=Objects.load(objects) if objects.exists() else Objects([], {}, {}),
        names=class_names(shared),
        words=vocabulary(minilm()),
        tokenize=Words(minilm()),
    )


def load_checks(shared: Path, work: Path, dev_trained: int) -> tuple[Captioned, Captioned | None]:
    dev, apart = Cache.load(work / "cache/flickr-dev").part(slice(dev_trained, None)), work / "cache/coco-check"
    written = Captioned(Cache.load(apart), json.loads((apart / "captions.json").read_text())) if apart.exists() else None
    return Captioned(dev, captions(shared)), written


def later_step(doc: str | None) -> argparse.ArgumentParser:
    """What every step after training takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="starter", help="the run that is written, or added to")
    parser.add_argument("--dev-trained", type=int, default=0, help="as it was in training")
    parser.add_argument("--trained-layers", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=7)
    return parser


def started(arguments: argparse.Namespace) -> Corpus:
    """Threads and seed are set."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    return load_corpus(arguments.shared, arguments.work, arguments.dev_trained)


def by_photo(coco: Cache, work: Path) -> dict[str, list[str]]:
    """What people wrote of each photo where that is known, else what COCO-QA cut out of it."""
    stated, written = work / "cocoqa", work / "coco-captions.json"
    known = statements(stated) if stated.exists() else {}
    known |= coco_captions(written.read_bytes()) if written.exists() else {}
    return {name: known[coco_id(name)] for name in coco.names if coco_id(name) in known}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--run", default="starter", help="name of the run; its checkpoint goes to WORK/RUN")
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--threads", type=int, default=2)
    for name, default in (asdict(Options()) | asdict(Weights())).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(default), default=default)
    chosen = parser.parse_args()
    if chosen.settled and chosen.start is None:
        parser.error("--settled wants --start: the run whose text tower stands still")
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(chosen.seed)
    options = Options(**{name: getattr(chosen, name) for name in asdict(Options())})
    weights = Weights(**{name: getattr(chosen, name) for name in asdict(Weights())})
    corpus = load_corpus(chosen.shared, chosen.work, options.dev_trained)
    model = build(chosen.shared, options.trained_layers)
    original = Original.load(model, corpus.tokenize, corpus.texts(), chosen.work / "original.pt")
    untaught = copy.deepcopy(model.image.state_dict())
    if chosen.start is not None:
        model.load_state_dict(torch.load(chosen.start))
    if options.settled:
        model.image.load_state_dict(untaught)
    if options.settled or chosen.start is None:
        place_names(model, corpus.tokenize, corpus.names)
    work = chosen.work / chosen.run
    work.mkdir(parents=True, exist_ok=True)
    train(
        model,
        corpus,
        original,
        load_checks(chosen.shared, chosen.work, options.dev_trained),
        weights=weights,
        options=options,
        work=work,
    )


if __name__ == "__main__":
    main()
