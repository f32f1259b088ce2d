"""S1's fully convolutional network over mel bands (Schreiber, MediaEval 2018).

Bands are its axis, statistics its channels. As the published Keras network has it, the averages of batch normalisation
keep 0.99 of themselves in a step, and its epsilon is 1e-3.
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
    """(rows, statistics × bands) mel bands, the bands of a statistic side by side → (rows, labels) logits.

    Blocks of convolution (3 bands), ELU, dropout, mean of two bands (not in the last) and batch normalisation; then a
    channel a label, whose mean over what is left of the bands is its logit.
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
        """(rows, statistics × bands) → (rows, labels)."""
        bands = inputs.view(len(inputs), len(STATISTICS), BANDS)
        logits: Tensor = self.head(self.body(bands)).mean(dim=2)
        return logits


def _batch_norm(channels: int) -> nn.BatchNorm1d:
    # Keras counts what an average keeps, torch what it takes in.
    return nn.BatchNorm1d(channels, eps=1e-3, momentum=1 - 0.99)
