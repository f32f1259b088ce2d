"""How a bundle states what is before and after its network. Nothing here imports torch."""

from typing import Literal

from pydantic import Field

from genre_ray.config import Description, Json

OutputName = Literal["sigmoid", "softmax", "cosine"]


class PreparationDescription(Description):
    """A preparation without its tensors, which are in `model.safetensors`."""

    kind: str = Field(description="which preparation, e.g. standardise")
    settings: dict[str, Json] = Field(description="what its modules are made with")


class OutputDescription(Description):
    """What the values of a network mean, for one task."""

    output: OutputName = Field(description="what makes scores of the network's values")
    labels: int = Field(ge=1, description="scores per row")
    width: int = Field(ge=1, description="values that the network gives per row")
