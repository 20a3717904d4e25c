"""Which pictures are learned from, which pick the best epoch, and which are measured once."""

from __future__ import annotations

from dataclasses import dataclass

from training.options import LabelledOptions
from training.pictures import Labelled, UnusablePictures, labelled, readable, split_labels, split_pictures


@dataclass(frozen=True, slots=True)
class Parts:
    """The three sets. `held_out` says in words what keeps them apart; `unreadable` files were left out."""

    train: Labelled
    validation: Labelled
    test: Labelled
    held_out: str
    unreadable: int


def parts(options: LabelledOptions) -> Parts:
    """The folder's own splits where it has `train`, `validation` and `test`, else by seed as `hold_out` says. Raises UnusablePictures."""
    found = labelled(options.pictures)
    held_out = f"{options.hold_out} held out by seed" if isinstance(found, Labelled) else "the folder's own split"
    if isinstance(found, Labelled):
        split = split_labels if options.hold_out == "labels" else split_pictures
        three = split(found, (options.validation_share, options.test_share), options.seed)
    elif {"train", "validation", "test"} <= found.keys():
        three = (found["train"], found["validation"], found["test"])
    elif {"train", "test"} <= found.keys():
        train, validation, _ = split_pictures(found["train"], (options.validation_share, 0.0), options.seed)
        three = (train, validation, found["test"])
    else:
        raise UnusablePictures(
            f"{options.pictures} has {', '.join(sorted(found))}: it wants train and test, or one folder per label"
        )
    train, validation, test = (_readable(part) for part in three)
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if not len(part):
            raise UnusablePictures(f"no pictures are left for {name}: there are too few, or too few labels")
    return Parts(train, validation, test, held_out, sum(map(len, three)) - len(train) - len(validation) - len(test))


def _readable(part: Labelled) -> Labelled:
    return part.of(row for row, opens in enumerate(readable(part.paths)) if opens)
