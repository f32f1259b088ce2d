"""Preparations: convert rows of the features table to the inputs of a network. They are stored in the bundle."""

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError
from genre_ray.features.essentia.melbands import BANDS, MELBAND_COLUMNS, STATISTICS, melband_places
from genre_ray.features.scaling import Scaling
from genre_ray.models.description import PreparationDescription


class StandardiseSettings(Settings):
    """What a `Standardise` is made with, except for its tensors."""

    columns: int = Field(ge=1)
    clip_sd: float | None = Field(None, gt=0)


class NoSettings(Settings):
    """A preparation without settings."""


class Preparation(nn.Module):
    """From rows of features, (rows, values) float32 of each modality, to a network's inputs, (rows, *shape).

    Attributes:
        kind: what bundles call it.
        settings_type: the class of its settings.
        settings: what it was made with, except for its tensors.
        shape: of a row of the result.
    """

    kind: ClassVar[str]
    settings_type: ClassVar[type[Settings]]
    shape: tuple[int, ...]

    @property
    def settings(self) -> Settings:
        """What it was made with."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """The preparation that was made with these settings, with empty tensors."""
        raise NotImplementedError

    def describe(self) -> PreparationDescription:
        """What `from_description` makes it from, except for the tensors."""
        return PreparationDescription(kind=self.kind, settings=self.settings.model_dump(mode="json"))

    @classmethod
    def from_description(cls, description: PreparationDescription) -> Self:
        """The preparation that `describe` described, with empty tensors.

        Raises:
            ConfigurationError: the description is another preparation's, or its settings are wrong.
        """
        if description.kind != cls.kind:
            raise ConfigurationError(f"preprocessing: expected {cls.kind}, found {description.kind!r}")
        return cls.from_settings(cls.settings_type.from_mapping(dict(description.settings), "preprocessing"))


class Standardise(Preparation):
    """(rows, columns) raw values → standardised ones; a missing value (NaN) becomes 0, the training mean.

    Attributes:
        clip_sd: bound of the result in standard deviations; None for no bound.
    """

    kind, settings_type = "standardise", StandardiseSettings
    mean: Tensor
    scale: Tensor

    def __init__(self, columns: int, clip_sd: float | None = None) -> None:
        super().__init__()
        self.shape, self.clip_sd = (columns,), clip_sd
        self.register_buffer("mean", torch.zeros(columns))
        self.register_buffer("scale", torch.ones(columns))

    @classmethod
    def of(cls, scaling: Scaling, clip_sd: float | None = None) -> Self:
        """Standardise as fitted; `clip_sd` bounds the result to so many standard deviations."""
        module = cls(len(scaling.mean), clip_sd)
        module.mean.copy_(torch.from_numpy(scaling.mean))
        module.scale.copy_(torch.from_numpy(scaling.scale))
        return module

    @property
    def settings(self) -> StandardiseSettings:
        """What it was made with."""
        return StandardiseSettings(columns=self.shape[0], clip_sd=self.clip_sd)

    @classmethod
    def from_settings(cls, settings: StandardiseSettings) -> Self:
        """The standardisation that was made with these settings, by a mean of 0 and a deviation of 1."""
        return cls(settings.columns, settings.clip_sd)

    def forward(self, features: Tensor) -> Tensor:
        """Return standardised values, (rows, columns)."""
        # One copy and then in place, because allocating memory for each step costs more than the steps.
        standardised = (features - self.mean).mul_(self.scale)
        standardised.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return standardised if self.clip_sd is None else standardised.clamp_(-self.clip_sd, self.clip_sd)


class Melbands(Preparation):
    """(rows, columns) raw values → (rows, statistics × bands) mel bands, each statistic relative to its own maximum.

    S1's input, rounded to float16 as its training data were stored. A statistic whose maximum is 0 stays as it is, one
    with a missing value (NaN) becomes 0. The columns of the result are `MELBAND_COLUMNS`.
    """

    kind, settings_type = "melbands", NoSettings
    places: Tensor

    def __init__(self, places: Sequence[int] = (0,) * len(MELBAND_COLUMNS)) -> None:
        super().__init__()
        self.shape = (len(MELBAND_COLUMNS),)
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))

    @classmethod
    def of(cls, columns: Sequence[str]) -> Self:
        """For a table of these columns.

        Raises:
            InputError: the table lacks mel band columns.
        """
        return cls(melband_places(columns))

    @property
    def settings(self) -> NoSettings:
        """There are none."""
        return NoSettings()

    @classmethod
    def from_settings(cls, settings: NoSettings) -> Self:
        """The preparation with places of 0."""
        return cls()

    def forward(self, features: Tensor) -> Tensor:
        """Return relative mel bands, (rows, statistics × bands)."""
        bands = features[:, self.places].view(-1, len(STATISTICS), BANDS)
        maximum = bands.amax(dim=2, keepdim=True)
        relative = bands / torch.where(maximum == 0, 1.0, maximum)
        # Only negative values, which a spectrum never has, can exceed the range of float16.
        bound = torch.finfo(torch.float16).max
        stored = relative.clamp(-bound, bound).to(torch.float16).to(features.dtype)
        return torch.where(maximum.isnan(), 0.0, stored).flatten(1)
