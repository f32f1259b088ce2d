"""Fusion: embeddings of several models side by side → a network over them.

S0 fuses the networks of several taxonomies over the same features, S3 those of several modalities.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from genre_ray.config import Settings
from genre_ray.models.fusion import FusionNetwork, FusionSettings
from genre_ray.models.preparation import Preparation
from genre_ray.systems.description import GENRES, ModelDescription
from genre_ray.systems.model import Model
from genre_ray.systems.system import System, Task


class EmbeddingSource(Settings):
    """A source model of `Embeddings`."""

    model: ModelDescription
    modality: int = Field(ge=0)


class EmbeddingsSettings(Settings):
    """What `Embeddings` are made with, except for their tensors."""

    sources: tuple[EmbeddingSource, ...] = Field(min_length=1)


class Embeddings(Preparation):
    """Rows of features → (rows, embeddings): each source model's embedding, L2-normalised, side by side.

    A row that lacks a modality (it is NaN throughout) gets 0 for the embeddings that are made of it.

    Args:
        models: the source models, which are frozen.
        modalities: for each of them, which of the features tables it reads, counted from 0.
    """

    kind, settings_type = "embeddings", EmbeddingsSettings

    def __init__(self, models: Sequence[Model], modalities: Sequence[int]) -> None:
        super().__init__()
        self._models = list(models)
        self.models = nn.ModuleList(models)
        self.modalities = tuple(modalities)
        self.shape = (sum(model.embedding_width or 0 for model in models),)
        self.requires_grad_(False).eval()

    @property
    def settings(self) -> EmbeddingsSettings:
        """What it was made with."""
        pairs = zip(self._models, self.modalities, strict=True)
        return EmbeddingsSettings(
            sources=tuple(EmbeddingSource(model=model.describe(), modality=modality) for model, modality in pairs)
        )

    @classmethod
    def from_settings(cls, settings: EmbeddingsSettings) -> Self:
        """The preparation that was made with these settings, with fresh weights."""
        sources = settings.sources
        return cls([Model.from_description(source.model) for source in sources], [s.modality for s in sources])

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode: an embedding is taken with dropout off."""
        return super().train(False)

    def forward(self, *features: Tensor) -> Tensor:
        """(rows, values) of each features table → (rows, sum of embedding widths)."""
        embeddings = []
        for model, modality in zip(self._models, self.modalities, strict=True):
            rows = features[modality]
            embedding = nn.functional.normalize(model.embed(rows), dim=1)
            if len(features) > 1:
                embedding = torch.where(rows.isnan().all(dim=1, keepdim=True), 0.0, embedding)
            embeddings.append(embedding)
        return torch.cat(embeddings, dim=1)


def _network(shape: tuple[int, ...], widths: Mapping[str, int], settings: Any) -> nn.Module:
    (inputs,) = shape
    return FusionNetwork(inputs, widths[GENRES], settings)


SYSTEM = System(
    name="fusion",
    source="Oramas, Bogdanov, Porter: MediaEval 2018 AcousticBrainz Genre Task baseline, embedding fusion",
    inputs={},
    preparation=Embeddings,
    prepare=None,
    network=_network,
    settings=FusionSettings,
    tasks=(Task(GENRES, "sigmoid"),),
)
