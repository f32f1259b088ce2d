"""What a model is made from, except for its tensors, as bundles state it. Nothing here imports torch."""

from pydantic import Field

from genre_ray.config import Description, Json
from genre_ray.models.description import OutputDescription, PreparationDescription

AUDIO = "audio"
"""The modality of everything that was computed from a recording's sound."""

GENRES = "genres"
"""The name of the task whose targets are a ground truth's labels, in the systems that have it."""


class ModelDescription(Description):
    """A model of one of the systems."""

    system: str = Field(description="name of the system")
    network: dict[str, Json] = Field(description="settings of the system's network")
    preprocessing: PreparationDescription = Field(description="what prepares a row for the network")
    outputs: dict[str, OutputDescription] = Field(min_length=1, description="by task")
