"""What is exported: the towers, and after them what keeps crowded pictures back."""

from torch import Tensor, nn

from training.starter.hubness import Hubness
from training.starter.model import ImageTower, TextTower


class ServedImageTower(nn.Module):
    """Pixels to embedding."""

    def __init__(self, lower: nn.Sequential, tower: ImageTower, hubness: Hubness) -> None:
        super().__init__()
        self.lower, self.tower, self.hubness = lower, tower, hubness

    def forward(self, pixels: Tensor) -> Tensor:
        return self.hubness.images(self.tower(self.lower(pixels)))


class ServedTextTower(nn.Module):
    """Token ids to embedding."""

    def __init__(self, tower: TextTower, hubness: Hubness) -> None:
        super().__init__()
        self.tower, self.hubness = tower, hubness

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.hubness.texts(self.tower(self.tower.embed(input_ids, attention_mask), attention_mask))
