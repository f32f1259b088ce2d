"""S0's network over Essentia features: parallel dense branches, an optional dense layer, and one logit per label.

The published baseline (MediaEval 2018) has one branch of 256 units. JKU's network (2017) has three branches of 4000 and
a dense layer of 8000 with batch normalisation. The later network of the baseline's authors has three branches of 2048
and a dense layer of 1024.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.models.dropout import Dropout

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}

Activation = Literal["relu", "tanh", "sigmoid"]


class Branches(Settings):
    """Parallel dense layers over the same input, one per activation."""

    units: int = 256
    activations: tuple[Activation, ...] = ("relu",)
    dropout: float = 0.5


class Hidden(Settings):
    """A dense layer with ReLU over the concatenated branches."""

    units: int
    bias: bool = True
    batch_norm: bool = False
    dropout: float = 0.5


class EssentiaSettings(Settings):
    """The shape of an `EssentiaNetwork`; the defaults are the published baseline."""

    input_dropout: float = 0.5
    branches: Branches = Branches()
    hidden: Hidden | None = None
    initial: Literal["uniform", "glorot"] = "uniform"


class EssentiaNetwork(nn.Module):
    """S0's network: standardised features (rows, inputs) → logits (rows, labels)."""

    def __init__(self, inputs: int, labels: int, settings: EssentiaSettings) -> None:
        super().__init__()
        self.settings, self.labels = settings, labels
        branches = settings.branches
        # In place, because the learner's batch is a copy.
        self.input_dropout = Dropout(settings.input_dropout, inplace=True)
        self.branches = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, branches.units), ACTIVATIONS[activation]())
            for activation in branches.activations
        )
        width = branches.units * len(branches.activations)
        self.hidden = _hidden(width, branches.dropout, settings.hidden)
        self.embedding_width = width if settings.hidden is None else settings.hidden.units
        self.head = nn.Sequential(Dropout(_head_dropout(settings)), nn.Linear(self.embedding_width, labels))
        initialise(self, settings.initial)

    def embed(self, inputs: Tensor) -> Tensor:
        """Return the activations before the output layer, (rows, embedding), which are the input of S0's fusion."""
        inputs = self.input_dropout(inputs)
        embedding: Tensor = self.hidden(torch.cat([branch(inputs) for branch in self.branches], dim=1))
        return embedding

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, (rows, labels)."""
        logits: Tensor = self.head(self.embed(inputs))
        return logits


def initialise(network: nn.Module, initial: str) -> None:
    """Initialise dense layers: weights uniform in (-0.05, 0.05), as in Keras 1 and S0, or Glorot-uniform; biases 0."""
    for module in network.modules():
        if isinstance(module, nn.Linear):
            if initial == "uniform":
                nn.init.uniform_(module.weight, -0.05, 0.05)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _hidden(width: int, dropout: float, settings: Hidden | None) -> nn.Sequential:
    if settings is None:
        return nn.Sequential()
    layers: list[nn.Module] = [Dropout(dropout), nn.Linear(width, settings.units, bias=settings.bias)]
    if settings.batch_norm:
        # In JKU's network this layer's dropout is before its batch normalisation, not before the output.
        layers += [Dropout(settings.dropout), nn.BatchNorm1d(settings.units)]
    return nn.Sequential(*layers, nn.ReLU())


def _head_dropout(settings: EssentiaSettings) -> float:
    if settings.hidden is None:
        return settings.branches.dropout
    return 0.0 if settings.hidden.batch_norm else settings.hidden.dropout
