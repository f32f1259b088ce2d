"""S1's fully convolutional network over mel bands (Schreiber, MediaEval 2018).

The convolutions run along the bands; the statistics are the channels. Batch normalisation has the settings of the
published Keras network: moving averages keep 0.99 of their value in each step, and epsilon is 1e-3.
"""

from pydantic import Field
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.features.essentia.melbands import BANDS, STATISTICS
from genre_ray.models.dropout import Dropout


class MelbandSettings(Settings):
    """The shape of a `MelbandNetwork`; the defaults are the published one."""

    filters: tuple[int, ...] = Field((64, 128, 256, 512), min_length=1, max_length=6)
    dropout: float = 0.2


class MelbandNetwork(nn.Module):
    """S1's network: mel bands (rows, statistics × bands) → logits (rows, labels).

    Each block consists of a convolution over 3 bands, ELU, dropout, average pooling over 2 bands (except in the last
    block) and batch normalisation. The output has one channel per label; its mean over the remaining bands is the
    logit.
    """

    def __init__(self, inputs: int, labels: int, settings: MelbandSettings) -> None:
        super().__init__()
        if inputs != len(STATISTICS) * BANDS:
            raise ValueError(f"expected {len(STATISTICS)} statistics of {BANDS} bands, found {inputs} inputs")
        layers: list[nn.Module] = []
        channels = len(STATISTICS)
        for number, filters in enumerate(settings.filters, 1):
            layers += [nn.Conv1d(channels, filters, 3, padding="same"), nn.ELU(), Dropout(settings.dropout)]
            if number < len(settings.filters):
                layers.append(nn.AvgPool1d(2))
            layers.append(_batch_norm(filters))
            channels = filters
        self.body = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Conv1d(channels, labels, 1), nn.ELU(), _batch_norm(labels))
        for module in self.modules():
            if isinstance(module, nn.Conv1d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits, (rows, labels)."""
        bands = inputs.view(len(inputs), len(STATISTICS), BANDS)
        logits: Tensor = self.head(self.body(bands)).mean(dim=2)
        return logits


def _batch_norm(channels: int) -> nn.BatchNorm1d:
    # Keras's momentum is the share of the old average that is kept, torch's is the share of the new value.
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=1 - 0.99)
