"""Measure how crowded the training pictures are under a run's towers, and write what takes it off: `hubness.pt` beside the weights."""

import sys

import torch

from training.starter.hubness import Texts, fitted
from training.starter.objective import Captioned
from training.starter.texts import Words
from training.starter.towers import Starter, build, embed_images
from training.starter.train import later_step, started

BANK = {"captions": 0.7, "statements": 0.2, "names": 0.1}
"""Shares of Flickr8k's captions, COCO's texts and class names among the texts at large; chosen on dev and on COCO's photos kept apart."""


@torch.no_grad()
def texts_at_large(model: Starter, tokenize: Words, captioned: list[Captioned], names: list[list[str]]) -> list[Texts]:
    """The first source's captions are Flickr8k's, further ones' are COCO's; pictures are numbered through all sources."""
    bank, first = [], 0
    for number, source in enumerate(captioned):
        rows = [row for row in source.rows() for _ in source.captions[source.photos.names[row]]]
        texts = [text for row in source.rows() for text in source.captions[source.photos.names[row]]]
        share = BANK["statements" if number else "captions"]
        bank.append(Texts(share, model.texts(tokenize, texts, part=250), torch.tensor(rows) + first))
        first += len(source.photos.names)
    named = [f"a photo of a {each[0]}" for each in names]
    return [*bank, Texts(BANK["names"], model.texts(tokenize, named, part=250), torch.full((len(named),), -1))]


def main() -> None:
    arguments = later_step(__doc__).parse_args()
    corpus = started(arguments)
    model = build(arguments.shared, arguments.trained_layers)
    model.load_state_dict(torch.load(arguments.work / arguments.run / "starter.pt"))
    model.eval()
    bank = texts_at_large(model, corpus.tokenize, corpus.captioned, corpus.names)
    images, owners, first = [], [], 0
    for cache in corpus.photos():
        for view in range(min(2, len(cache.maps))):
            images.append(torch.from_numpy(embed_images(model, cache.maps[view])))
            owners.append(torch.arange(first, first + len(cache.names)))
        first += len(cache.names)
    hubness, explained = fitted(torch.cat(images), torch.cat(owners), bank)
    torch.save(hubness.state_dict(), arguments.work / arguments.run / "hubness.pt")
    sys.stdout.write(f"{arguments.run}: {len(hubness.anchors)} anchors explain {explained:.1%} of how crowded pictures are\n")


if __name__ == "__main__":
    main()
