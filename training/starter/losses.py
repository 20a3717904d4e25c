"""What the towers are taught, each term a function of vectors."""

import torch
from torch import Tensor
from torch.nn import functional


def contrastive(left: Tensor, right: Tensor, scale: Tensor, target: Tensor | None = None) -> Tensor:
    """InfoNCE both ways: row i of `left` belongs to row i of `right` (van den Oord et al. 2018, CLIP's symmetric form).

    `target` (n, n), its rows summing to 1, softens that where several answers would be right.
    """
    logits = scale * left @ right.T
    wanted = torch.arange(len(left)) if target is None else target
    return 0.5 * (functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted))


def likeness(original: Tensor, share: float, temperature: float = 0.1) -> Tensor:
    """Targets for `contrastive`: `share` of the mass goes to captions that the untouched encoder finds alike."""
    original = functional.normalize(original, dim=1)
    alike = (original @ original.T / temperature).softmax(1)
    return (1 - share) * torch.eye(len(original)) + share * alike


def soft_contrastive(images: Tensor, names: Tensor, probs: Tensor, scale: Tensor) -> Tensor:
    """Each image against the sampled class names; `probs` are the teacher's, their missing mass lowers the image's weight."""
    mass = probs.sum(1)
    target = probs / mass.clamp(min=1e-6).unsqueeze(1)
    each = -(target * (scale * images @ names.T).log_softmax(1)).sum(1)
    return (each * mass).sum() / mass.sum().clamp(min=1e-6)


def whose(images: Tensor, kinds: Tensor, present: Tensor, scale: Tensor) -> Tensor:
    """Kinds of object against the photos that have them, both ways; each photo and each kind counts at most once."""
    return 0.5 * (_shared(scale * images @ kinds.T, present) + _shared(scale * kinds @ images.T, present.T))


def _shared(logits: Tensor, present: Tensor) -> Tensor:
    mass = present.sum(1)
    target = present / mass.clamp(min=1e-6).unsqueeze(1)
    weight = mass.clamp(max=1.0)
    return (-(target * logits.log_softmax(1)).sum(1) * weight).sum() / weight.sum().clamp(min=1e-6)


def keep_classes(logits: Tensor, probs: Tensor) -> Tensor:
    """Learning without forgetting (Li & Hoiem 2016): the classifier goes on saying what the teacher said."""
    return functional.kl_div(logits.log_softmax(1), probs, reduction="batchmean")


def keep_neighbours(vectors: Tensor, original: Tensor, temperature: float = 0.1) -> Tensor:
    """Texts keep the neighbours that the untouched sentence encoder gives them, whatever the axes of the new space."""
    others = ~torch.eye(len(vectors), dtype=torch.bool)
    ours = (vectors @ vectors.T / temperature)[others].view(len(vectors), -1).log_softmax(1)
    theirs = (original @ original.T / temperature)[others].view(len(vectors), -1).softmax(1)
    return functional.kl_div(ours, theirs, reduction="batchmean")


def painted(features: Tensor, classifier: Tensor, classes: Tensor, strength: Tensor) -> Tensor:
    """Feature maps with a class added: the classifier's weight vector is the direction in which pictures of the class lie."""
    direction = functional.normalize(classifier[classes] - classifier.mean(0), dim=1)
    return (features + (strength.unsqueeze(1) * direction)[:, :, None, None]).clamp(0.0, 6.0)


def taught(ours: Tensor, theirs: Tensor, texts: Tensor, closeness: float = 5.0, sharpness: float = 25.0) -> Tensor:
    """How far our images lie from where teachers put them, and how differently they see these texts."""
    seen = (sharpness * theirs @ texts.T).softmax(1)
    apart = functional.kl_div((sharpness * ours @ texts.T).log_softmax(1), seen, reduction="batchmean")
    return closeness * (1 - (ours * theirs).sum(1)).mean() + apart
