"""The description of a preparation in a bundle. This module does not import torch."""

from pydantic import Field

from genre_ray.config import Description, Json


class PreparationDescription(Description):
    """A preparation without its tensors, which are in `model.safetensors`."""

    kind: str = Field(description="which preparation, e.g. standardise")
    settings: dict[str, Json] = Field(description="what its modules are made with")
