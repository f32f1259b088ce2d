"""Preparations: convert rows of the features table to the inputs of a network. They are stored in the bundle."""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError
from genre_ray.features.essentia.melbands import BANDS, MELBAND_COLUMNS, STATISTICS, melband_places
from genre_ray.features.scaling import Scaling
from genre_ray.models.description import PreparationDescription
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings


class StandardiseSettings(Settings):
    """The settings of `Standardise`, without its tensors."""

    columns: int = Field(ge=1)
    clip_sd: float | None = Field(None, gt=0)


class EmbeddingSource(Settings):
    """The settings of one network inside `Embeddings`, without its tensors."""

    standardise: StandardiseSettings
    network: EssentiaSettings
    labels: int = Field(ge=1)


class EmbeddingsSettings(Settings):
    """The settings of `Embeddings`, without the tensors."""

    sources: tuple[EmbeddingSource, ...] = Field(min_length=1)


class MelbandsSettings(Settings):
    """The settings of `Melbands`, which has none."""


class Standardise(nn.Module):
    """Standardise each column. A missing value (NaN) becomes 0, which is the training mean.

    Attributes:
        width: number of columns of the result.
        clip_sd: clip the result to this many standard deviations; None for no clipping.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int, clip_sd: float | None = None) -> None:
        super().__init__()
        self.width, self.clip_sd = columns, clip_sd
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    @classmethod
    def of(cls, scaling: Scaling, clip_sd: float | None = None) -> "Standardise":
        """Make a preparation from a fitted scaling."""
        module = cls(len(scaling.mean), clip_sd)
        module.mean.copy_(torch.from_numpy(scaling.mean))
        module.scale.copy_(torch.from_numpy(scaling.scale))
        return module

    @property
    def settings(self) -> StandardiseSettings:
        """What it was made with."""
        return StandardiseSettings(columns=self.width, clip_sd=self.clip_sd)

    def describe(self) -> PreparationDescription:
        """What `build_preparation` makes it from, except the tensors."""
        return _describe("standardise", self.settings)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised values, (rows, columns)."""
        # One copy and then in place, because allocating memory for each step costs more than the steps.
        standardised = (features - self.mean).mul_(self.scale)
        standardised.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return standardised if self.clip_sd is None else standardised.clamp_(-self.clip_sd, self.clip_sd)


class Melbands(nn.Module):
    """Select the mel bands and divide each statistic by its maximum over the bands, as S1 does.

    Values are rounded to float16, the type of S1's training data. A statistic whose maximum is 0 is not divided. A
    statistic with a missing value (NaN) becomes 0.

    Attributes:
        width: number of columns of the result, which are `MELBAND_COLUMNS`.
    """

    places: Tensor

    def __init__(self, places: Sequence[int] = (0,) * len(MELBAND_COLUMNS)) -> None:
        super().__init__()
        self.width = len(MELBAND_COLUMNS)
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))

    @classmethod
    def of(cls, columns: Sequence[str]) -> "Melbands":
        """Make the preparation for a table with these columns.

        Raises:
            InputError: the table lacks mel band columns.
        """
        return cls(melband_places(columns))

    def describe(self) -> PreparationDescription:
        """What `build_preparation` makes it from, except the tensors."""
        return _describe("melbands", MelbandsSettings())

    def forward(self, features: Tensor) -> Tensor:
        """Return relative mel bands, (rows, statistics × bands)."""
        bands = features[:, self.places].view(-1, len(STATISTICS), BANDS)
        maximum = bands.amax(dim=2, keepdim=True)
        relative = bands / torch.where(maximum == 0, 1.0, maximum)
        # Only negative values, which a spectrum never has, can exceed the range of float16.
        bound = torch.finfo(torch.float16).max
        stored = relative.clamp(-bound, bound).to(torch.float16).to(features.dtype)
        return torch.where(maximum.isnan(), 0.0, stored).flatten(1)


class Embeddings(nn.Module):
    """Concatenate the L2-normalised embeddings of several networks, as S0's fusion does.

    All networks read the same features, so every recording has all embeddings.

    Attributes:
        width: number of columns of the result.
    """

    def __init__(self, sources: Sequence[tuple[Standardise, EssentiaNetwork]]) -> None:
        super().__init__()
        self._sources = list(sources)
        self.standardise = nn.ModuleList(standardise for standardise, _ in sources)
        self.networks = nn.ModuleList(network for _, network in sources)
        self.width = sum(network.embedding_width for _, network in sources)
        self.requires_grad_(False).eval()

    def describe(self) -> PreparationDescription:
        """What `build_preparation` makes it from, except the tensors."""
        sources = tuple(
            EmbeddingSource(standardise=standardise.settings, network=network.settings, labels=network.labels)
            for standardise, network in self._sources
        )
        return _describe("embeddings", EmbeddingsSettings(sources=sources))

    def train(self, mode: bool = True) -> "Embeddings":
        """Stay in evaluation mode, because embeddings are computed without dropout."""
        return super().train(False)

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings, (rows, sum of embedding widths)."""
        embeddings = [
            nn.functional.normalize(network.embed(standardise(features)), dim=1)
            for standardise, network in self._sources
        ]
        return torch.cat(embeddings, dim=1)


Preparation = Standardise | Melbands | Embeddings


def build_preparation(description: PreparationDescription) -> Preparation:
    """Make the preparation that `describe` described, with empty tensors.

    Raises:
        ConfigurationError: there is no such preparation, or its settings are wrong.
    """
    if description.kind == "standardise":
        return _standardise(StandardiseSettings.from_mapping(description.settings, "preprocessing"))
    if description.kind == "melbands":
        MelbandsSettings.from_mapping(description.settings, "preprocessing")
        return Melbands()
    if description.kind == "embeddings":
        settings = EmbeddingsSettings.from_mapping(description.settings, "preprocessing")
        return Embeddings(
            [
                (
                    _standardise(source.standardise),
                    EssentiaNetwork(source.standardise.columns, source.labels, source.network),
                )
                for source in settings.sources
            ]
        )
    raise ConfigurationError(f"preprocessing: expected standardise, melbands or embeddings, found {description.kind!r}")


def _standardise(settings: StandardiseSettings) -> Standardise:
    return Standardise(settings.columns, settings.clip_sd)


def _describe(kind: str, settings: Settings) -> PreparationDescription:
    return PreparationDescription(kind=kind, settings=settings.model_dump(mode="json"))
