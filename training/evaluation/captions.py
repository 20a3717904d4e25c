"""What the dual encoder makes of captioned pictures: words to pictures, and pictures to words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from model_service.parts import Parts
from training.evaluation import embedding, examples, scores
from training.evaluation.embedding import Skipped
from training.evaluation.evaluation import CaptionScores
from training.evaluation.examples import Examples, Shown
from training.evaluation.intervals import draws
from training.evaluation.options import EvaluateOptions
from training.pictures import Captioned


@dataclass(frozen=True, slots=True)
class OfCaptions:
    scores: CaptionScores
    examples: tuple[Examples, ...]
    skipped: tuple[Skipped, ...]


def measure(parts: Parts, asked: Captioned, options: EvaluateOptions) -> OfCaptions:
    """Raises UnusablePictures when none can be read."""
    embedded = embedding.embed_pictures(parts.image_towers[:1], asked.paths, threads=options.threads, shown="captioned pictures")
    pictures = asked.of(embedded.rows)
    captions = [caption for of_picture in pictures.captions for caption in of_picture]
    own = np.arange(len(pictures))
    owner = np.repeat(own, [len(of_picture) for of_picture in pictures.captions])
    texts = embedding.embed_texts(parts.text_tower, captions, shown="captions")
    to_image = scores.rank(texts, embedded.vectors[0], owner, own)
    to_text = scores.rank(embedded.vectors[0], texts, own, owner)

    def picture(row: int) -> Shown:
        return Shown(pictures.paths[row], None)

    def caption(row: int) -> Shown:
        return Shown(None, captions[row])

    rng = draws(options.seed, "caption examples")
    return OfCaptions(
        scores=CaptionScores(
            pictures=len(pictures),
            captions=len(captions),
            text_to_image=scores.retrieval(to_image, owner, draws(options.seed, "text to image")),
            image_to_text=scores.retrieval(to_text, own, draws(options.seed, "image to text")),
        ),
        examples=(
            examples.of("Text to image", to_image, owner, own, rng, query=caption, candidate=picture, spread=owner),
            examples.of("Image to text", to_text, own, owner, rng, query=picture, candidate=caption, spread=own),
        ),
        skipped=embedded.skipped,
    )
