"""What metric and few-shot learning begin with: labelled pictures in three sets, a tower, and an open run."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from training.fitting import Arithmetic, arithmetic
from training.measured import Pictures
from training.options import LabelledOptions
from training.runs import Run, seeded
from training.splits import Parts, parts
from training.towers import StartImage, start_image


@dataclass(frozen=True, slots=True)
class Begun:
    """The tower is on its device; validation and test pictures are as they are served."""

    numbers: Arithmetic
    found: Parts
    run: Run
    image: StartImage

    @property
    def validation(self) -> Pictures:
        return Pictures(self.found.validation, self.image.processor, self.numbers)

    @property
    def test(self) -> Pictures:
        return Pictures(self.found.test, self.image.processor, self.numbers)


def begin(options: LabelledOptions) -> Begun:
    """Raises UnusablePictures and its kin."""
    numbers = arithmetic(options)
    found = parts(options)
    run = Run.open(options)
    sys.stdout.write(
        f"{len(found.train)} pictures to learn from, {len(found.validation)} and {len(found.test)} held out ({found.held_out})\n"
    )
    if found.unreadable:
        sys.stdout.write(f"left out: {found.unreadable} files that cannot be read as pictures\n")
    seeded(options.seed)
    image = start_image(options.tower, options.models_dir)
    image.backbone.to(numbers.device).to(memory_format=torch.channels_last)
    return Begun(numbers, found, run, image)
