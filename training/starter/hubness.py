"""Hubs: pictures that lie near every text, and so are found by too many.

How near a picture lies to texts at large is taken off its scores (the inverted softmax of Smith et al. 2017, with a bank of training
texts). That number belongs to the picture alone, so it can be written into its vector: a text says "0.5" in one coordinate where the
picture says how crowded it is there, and cosine does the subtraction. A further coordinate, 0 in every text, fills the picture's vector
up to length 1.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SHARPNESS = 20.0
TAKEN_OFF = 0.75
"""Chosen on dev, like the sharpness: all of it helps captions a little more, and class names less."""
SPOKEN = 0.5
REACH = 0.13
"""Pictures lie up to this much nearer to texts at large than the mean picture, or farther; three standard deviations."""
ANCHORS = 256


class Hubness(nn.Module):
    """From the towers' vectors to those that are served."""

    def __init__(self, dim: int, anchors: int = ANCHORS) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.eye(dim, dim - 2))
        self.anchors = nn.Parameter(torch.zeros(anchors, dim - 2))
        self.weights = nn.Parameter(torch.full((anchors,), -math.log(anchors)))
        self.mean = nn.Parameter(torch.zeros(()))

    def turned(self, vectors: Tensor) -> Tensor:
        """Without the two directions that carry least, L2-normalised (n, dim - 2)."""
        return functional.normalize(vectors @ self.turn, dim=-1)

    def nearness(self, turned: Tensor) -> Tensor:
        """Log-mean-exp similarity to texts at large (n,), of which the anchors stand for all."""
        return (SHARPNESS * turned @ self.anchors.T + self.weights).logsumexp(-1) / SHARPNESS

    def images(self, vectors: Tensor) -> Tensor:
        """Returns unit vectors (n, dim)."""
        turned = self.turned(vectors)
        steepness = TAKEN_OFF * math.sqrt(1 - SPOKEN**2) / SPOKEN
        shrunk = 1 / math.sqrt(1 + (steepness * REACH) ** 2)  # leaves room for the farthest reach
        crowded = (self.nearness(turned) - self.mean).clamp(-REACH, REACH).unsqueeze(-1) * (shrunk * steepness)
        rest = (1 - shrunk**2 - crowded.square()).clamp(min=0.0).sqrt()
        return torch.cat([shrunk * turned, -crowded, rest], dim=-1)

    def texts(self, vectors: Tensor) -> Tensor:
        """Returns unit vectors (n, dim)."""
        turned = self.turned(vectors)
        said = torch.full_like(turned[..., :1], SPOKEN)
        return torch.cat([math.sqrt(1 - SPOKEN**2) * turned, said, torch.zeros_like(said)], dim=-1)


@dataclass(frozen=True)
class Texts:
    """Some of the texts at large."""

    share: float
    vectors: Tensor
    owners: Tensor
    """The number of the picture that each text describes, -1 where it describes none."""


def fitted(
    images: Tensor, owners: Tensor, bank: list[Texts], *, anchors: int = ANCHORS, steps: int = 1500
) -> tuple[Hubness, float]:
    """Of vectors of training pictures (n, dim), their numbers (n,), and texts at large, of which a picture's own do not count for it.

    Returns the share of the variance, over pictures that the anchors were not fitted to, that the anchors explain.
    """
    hubness = Hubness(images.shape[1], anchors)
    with torch.no_grad():
        texts = torch.cat([part.vectors for part in bank])
        spread = images.T @ images / len(images) + texts.T @ texts / len(texts)
        hubness.turn.copy_(torch.linalg.eigh(spread).eigenvectors[:, 2:])
        turned = hubness.turned(images)
        parts = torch.arange(len(images)).chunk(1 + len(images) // 500)
        exact = torch.cat([nearness_of_all(turned[rows], owners[rows], hubness, bank) for rows in parts])
        hubness.mean.copy_(exact.mean())
        drawn = torch.cat([torch.full((len(part.vectors),), part.share / len(part.vectors)) for part in bank]).multinomial(
            anchors
        )
        hubness.anchors.copy_(hubness.turned(texts[drawn]))
    fit, apart = torch.randperm(len(turned)).tensor_split([len(turned) * 9 // 10])
    optimiser = torch.optim.Adam([hubness.anchors, hubness.weights], lr=3e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = fit[torch.randint(len(fit), (1024,))]
        optimiser.zero_grad()
        torch.autograd.backward(functional.mse_loss(hubness.nearness(turned[rows]), exact[rows]))
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        left = functional.mse_loss(hubness.nearness(turned[apart]), exact[apart])
    return hubness, float(1 - left / exact[apart].var())


def nearness_of_all(turned: Tensor, owners: Tensor, hubness: Hubness, bank: list[Texts]) -> Tensor:
    """Log-mean-exp similarity to every text of the bank but the picture's own (n,)."""
    found = []
    for part in bank:
        own = (owners.unsqueeze(1) == part.owners) & (part.owners >= 0)
        logits = (SHARPNESS * turned @ hubness.turned(part.vectors).T).masked_fill(own, -math.inf)
        found.append(logits.logsumexp(1) + math.log(part.share / len(part.vectors)))
    return torch.stack(found).logsumexp(0) / SHARPNESS
