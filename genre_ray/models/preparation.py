"""From rows of the features table to what a network is trained on; fixed once fitted, and part of the bundle."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from genre_ray.features.essentia.melbands import BANDS, MELBAND_COLUMNS, STATISTICS, melband_places
from genre_ray.features.scaling import Scaling


class Preparation(nn.Module):
    """From rows of features, (rows, values) float32 of each modality, to a network's inputs, (rows, *shape).

    Attributes:
        shape: of a row of the result.
    """

    shape: tuple[int, ...]

    def describe(self) -> dict[str, Any]:
        """What `from_description` needs to make it again, except for the tensors."""
        raise NotImplementedError

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The preparation that described itself so, with empty tensors."""
        raise NotImplementedError


class Standardise(Preparation):
    """(rows, columns) raw values → standardised ones; a missing value (NaN) becomes 0, the training mean.

    Attributes:
        clip_sd: bound of the result in standard deviations; None for no bound.
    """

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

    def describe(self) -> dict[str, Any]:
        """What `from_description` needs to make it again, except for the tensors."""
        return {"kind": "standardise", "columns": self.shape[0], "clip_sd": self.clip_sd}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The preparation that described itself so, with empty tensors."""
        return cls(description["columns"], description["clip_sd"])

    def forward(self, features: Tensor) -> Tensor:
        """(rows, columns) → (rows, columns)."""
        # One copy, then in place: new memory for every step costs more than the steps.
        standardised = (features - self.mean).mul_(self.scale)
        standardised.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return standardised if self.clip_sd is None else standardised.clamp_(-self.clip_sd, self.clip_sd)


class Melbands(Preparation):
    """(rows, columns) raw values → (rows, statistics × bands) mel bands, each statistic relative to its own maximum.

    S1's input, rounded to float16 as its training data were stored. A statistic whose maximum is 0 stays as it is, one
    with a missing value (NaN) becomes 0. The columns of the result are `MELBAND_COLUMNS`.
    """

    places: Tensor

    def __init__(self, places: Sequence[int] = (0,) * len(MELBAND_COLUMNS)) -> None:
        super().__init__()
        self.shape = (len(MELBAND_COLUMNS),)
        self.register_buffer("places", torch.tensor(places, dtype=torch.int64))

    @classmethod
    def of(cls, columns: Sequence[str]) -> Self:
        """For a table of these columns.

        Raises:
            InputError: the table has no mel bands.
        """
        return cls(melband_places(columns))

    def describe(self) -> dict[str, Any]:
        """There is nothing to describe but the tensors."""
        return {"kind": "melbands"}

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Self:
        """The preparation with places of 0."""
        return cls()

    def forward(self, features: Tensor) -> Tensor:
        """(rows, columns) → (rows, statistics × bands)."""
        bands = features[:, self.places].view(-1, len(STATISTICS), BANDS)
        maximum = bands.amax(dim=2, keepdim=True)
        relative = bands / torch.where(maximum == 0, 1.0, maximum)
        # Only values below 0, which no spectrum has, can leave the range of float16.
        bound = torch.finfo(torch.float16).max
        stored = relative.clamp(-bound, bound).to(torch.float16).to(features.dtype)
        return torch.where(maximum.isnan(), 0.0, stored).flatten(1)
