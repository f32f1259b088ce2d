"""How a bundle states what prepares the rows of its network. Nothing here imports torch."""

from pydantic import Field, JsonValue

from genre_ray.config import Description


class PreparationDescription(Description):
    """A preparation without its tensors, which are in `model.safetensors`."""

    kind: str = Field(description="which preparation, e.g. standardise")
    settings: dict[str, JsonValue] = Field(description="what its modules are made with")
