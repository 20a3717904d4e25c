"""The two towers of `starter`, in torch: what is trained, and what is exported."""

from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel

DIM = 512
HEADS = 8
CHANNELS = 1280
CELL_DROP = 0.15


class FoldedConv(nn.Module):
    """A convolution with its batch norm already folded in, padded as TensorFlow's SAME: at stride 2 below and right alone."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, groups: int, clipped: bool) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups, self.clipped = stride, groups, clipped
        self.wide = weight.shape[-1] == 3

    def forward(self, x: Tensor) -> Tensor:
        padding = 0
        if self.wide and self.stride == 2:
            x = functional.pad(x, (0, 1, 0, 1))
        elif self.wide:
            padding = 1
        x = functional.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)
        return functional.hardtanh(x, 0.0, 6.0) if self.clipped else x


class Residual(nn.Module):
    """One inverted bottleneck of MobileNetV2."""

    def __init__(self, convs: list[FoldedConv]) -> None:
        super().__init__()
        self.convs = nn.Sequential(*convs)
        self.added = convs[0].weight.shape[1] == convs[-1].weight.shape[0] and all(conv.stride == 1 for conv in convs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return x + y if self.added else y


@dataclass(frozen=True)
class Backbone:
    """MobileNetV2 cut in two: `lower` ends where the feature cache was taken, `upper` gives 1280 x 7 x 7."""

    lower: nn.Sequential
    upper: nn.Sequential
    classifier: nn.Linear


def load_backbone(weights: Path, lower_blocks: int = 14) -> Backbone:
    """Read MobileNetV2's ONNX graph. Raises ValueError when it is not the expected chain of convolutions."""
    graph = onnx.load(str(weights)).graph
    stored = {tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in graph.initializer}
    clipped = {node.input[0] for node in graph.node if node.op_type == "Clip"}
    convs = []
    for node in (node for node in graph.node if node.op_type == "Conv"):
        settings = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        weight, bias = stored[node.input[1]], stored[node.input[2]]
        convs.append(FoldedConv(weight, bias, settings["strides"][0], settings["group"], node.output[0] in clipped))
    if len(convs) != 53:
        raise ValueError(f"expected MobileNetV2's 53 convolutions, found {len(convs)}")
    last, classes = convs[51], convs[52]
    blocks = [Residual(convs[1:3])] + [Residual(convs[start : start + 3]) for start in range(3, 51, 3)]
    classifier = nn.Linear(CHANNELS, 1000)
    with torch.no_grad():
        classifier.weight.copy_(classes.weight[1:, :, 0, 0])
        classifier.bias.copy_(classes.bias[1:])
    return Backbone(nn.Sequential(convs[0], *blocks[:lower_blocks]), nn.Sequential(*blocks[lower_blocks:], last), classifier)


class ImageHead(nn.Module):
    """Three voices, each trusted by the picture: the mean of the map, what attention picks of it, the names of the classes it resembles.

    The last keeps words that no caption used: class probabilities weigh one learned vector a class, held near its name's text vector.
    """

    def __init__(self, classifier: nn.Linear, dropout: float) -> None:
        super().__init__()
        self.classifier = classifier
        self.mean = nn.Linear(CHANNELS, DIM)
        self.keys = nn.Linear(CHANNELS, HEADS)
        self.values = nn.Linear(CHANNELS, DIM)
        self.mix = nn.Linear(DIM, DIM)
        self.names = nn.Parameter(torch.randn(1000, DIM))
        self.trust = nn.Linear(CHANNELS, 3)
        nn.init.zeros_(self.trust.weight)
        nn.init.constant_(self.trust.bias, 0.5)
        self.sharpness = nn.Parameter(torch.tensor(0.7))
        self.dropout = nn.Dropout(dropout)
        self.cell_dropout = nn.Dropout2d(CELL_DROP)

    def class_logits(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(features.mean((2, 3)))
        return logits

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        cells = features.flatten(2).transpose(1, 2)  # (n, 49, channels)
        cells = self.cell_dropout(cells.unsqueeze(-1)).squeeze(-1)  # whole places of the picture, not channels
        pooled = cells.mean(1)
        mean = self.mean(self.dropout(pooled))
        attention = self.keys(cells).softmax(1).transpose(1, 2)  # (n, heads, 49)
        values = self.values(cells).transpose(1, 2).unflatten(1, (HEADS, DIM // HEADS))
        picked = self.mix(self.dropout((values @ attention.unsqueeze(-1)).flatten(1)))
        named = (self.sharpness * logits).softmax(-1) @ functional.normalize(self.names, dim=-1)
        trust = functional.softplus(self.trust(pooled))
        voices = trust[:, :1] * mean + trust[:, 1:2] * picked + trust[:, 2:] * named
        return functional.normalize(voices, dim=-1)


class ImageTower(nn.Module):
    """From the cached activations (or, with `lower`, from pixels) to the embedding."""

    def __init__(self, backbone: Backbone, dropout: float = 0.2) -> None:
        super().__init__()
        self.upper = backbone.upper
        self.head = ImageHead(backbone.classifier, dropout)

    def forward(self, lower_map: Tensor) -> Tensor:
        """Returns the L2-normalised embeddings (n, DIM)."""
        return self.from_features(self.upper(lower_map))[1]

    def pretrained(self) -> list[nn.Parameter]:
        """What MobileNetV2 brought: the upper blocks and the classifier."""
        return [*self.upper.parameters(), *self.head.classifier.parameters()]

    def new(self) -> list[nn.Parameter]:
        """The rest of the head."""
        known = {id(parameter) for parameter in self.pretrained()}
        return [parameter for parameter in self.head.parameters() if id(parameter) not in known]

    def from_features(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the class logits (n, 1000) and the embeddings."""
        logits = self.head.class_logits(features)
        return logits, self.head(features, logits)


class TextTower(nn.Module):
    """MiniLM: `embed` is the frozen part whose result is cached, `forward` the trained layers and the projection."""

    def __init__(self, folder: Path, trained_layers: int, dropout: float = 0.1) -> None:
        super().__init__()
        bert = AutoModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
        layers = list(bert.encoder.layer)
        self.embeddings = bert.embeddings
        self.lower = nn.ModuleList(layers[: len(layers) - trained_layers])
        self.layers = nn.ModuleList(layers[len(layers) - trained_layers :])
        self.project = nn.Linear(384, DIM)
        nn.init.orthogonal_(self.project.weight)  # an isometry: training starts from MiniLM's own neighbourhoods
        nn.init.zeros_(self.project.bias)
        last = nn.Linear(768, DIM)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.widen = nn.Sequential(nn.Linear(384, 768), nn.GELU(), nn.Dropout(dropout), last)

    def embed(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self._through(self.lower, self.embeddings(input_ids=input_ids), attention_mask)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return self.projected(self.sentence(hidden, attention_mask))

    def projected(self, sentence: Tensor) -> Tensor:
        return functional.normalize(self.project(sentence) + self.widen(sentence), dim=-1)

    def sentence(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """MiniLM's own sentence vector: the mean of the tokens, L2-normalised (n, 384)."""
        hidden = self._through(self.layers, hidden, attention_mask).float()
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return functional.normalize((hidden * mask).sum(1) / mask.sum(1).clamp(min=1.0), dim=-1)

    def _through(self, layers: nn.ModuleList, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """A large negative number, not infinity: int8 export and half precision survive it."""
        mask = (1.0 - attention_mask[:, None, None, :].to(hidden.dtype)) * -10000.0
        for layer in layers:
            found = layer(hidden, mask)
            hidden = found[0] if isinstance(found, tuple) else found
        return hidden
