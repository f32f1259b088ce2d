"""S0's fusion network: one dense layer over the embeddings of several source networks."""

from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.models.dropout import Dropout
from genre_ray.models.essentia import initialise


class FusionSettings(Settings):
    """The shape of a `FusionNetwork`; the default is the published one."""

    dropout: float = 0.5


class FusionNetwork(nn.Module):
    """S0's fusion: concatenated L2-normalised embeddings (rows, inputs) → logits (rows, labels)."""

    def __init__(self, inputs: int, labels: int, settings: FusionSettings) -> None:
        super().__init__()
        self.embedding_width = inputs
        self.head = nn.Sequential(Dropout(settings.dropout, inplace=True), nn.Linear(inputs, labels))
        initialise(self, "uniform")

    def embed(self, inputs: Tensor) -> Tensor:
        """Return the input, because this network has no layer before its output."""
        return inputs

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, (rows, labels)."""
        logits: Tensor = self.head(inputs)
        return logits
