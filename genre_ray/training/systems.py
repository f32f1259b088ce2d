"""The systems that can be trained, each one value: its network, what its output means and its published rules."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from genre_ray.config import Settings
from genre_ray.errors import ConfigurationError
from genre_ray.features.scaling import fit_scaling
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings
from genre_ray.models.fusion import FusionNetwork, FusionSettings
from genre_ray.models.melband import MelbandNetwork, MelbandSettings
from genre_ray.models.outputs import OUTPUTS, Output
from genre_ray.models.preparation import Melbands, Preparation, Standardise


class TrainingRules(Settings):
    """How a network is trained: Adam, and early stopping on the validation loss with the best weights restored."""

    learning_rate: float = Field(1e-3, gt=0, description="of Adam (0.9, 0.999, 1e-8)")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty in Adam")
    batch: int = Field(32, ge=1, description="rows per step, over all workers together")
    max_epochs: int = Field(100, ge=1, description="passes over the training rows at most")
    patience: int = Field(4, ge=1, description="epochs without a lower validation loss before training stops")
    seed: int = Field(0, ge=0, description="of the initial weights, the order of rows and dropout")


Rows = Callable[[], Iterable[np.ndarray[Any, np.dtype[np.float32]]]]

Prepare = Callable[[Sequence[str], Rows, float | None], Preparation]


@dataclass(frozen=True)
class System:
    """A kind of model.

    Attributes:
        name: what configurations and bundles call it.
        network: (inputs, labels, settings) → network.
        settings: the class of the network's settings; its defaults are the published network.
        prepare: (columns of the table, its training rows, clip_sd) → what the network's inputs are made with; None
            for a system that learns from bundles.
        output: the kind of output, a key of `OUTPUTS`.
        rules: the published training rules.
        source: where it was published.
    """

    name: str
    network: Callable[[int, int, Any], nn.Module]
    settings: type[Settings]
    prepare: Prepare | None
    output: str
    rules: TrainingRules
    source: str

    def resolve_rules(self, overrides: dict[str, Any]) -> TrainingRules:
        """The published rules with some of them replaced."""
        return TrainingRules.from_mapping({**self.rules.model_dump(), **overrides}, "rules")

    def resolve_network(self, overrides: dict[str, Any]) -> Settings:
        """The published network's settings with some of them replaced."""
        return self.settings.from_mapping(overrides, "network")

    def build(self, inputs: int, labels: int, settings: Settings) -> nn.Module:
        """A freshly initialised network."""
        return self.network(inputs, labels, settings)

    @property
    def outputs(self) -> Output:
        """Loss and score."""
        return OUTPUTS[self.output]


def _standardise(columns: Sequence[str], rows: Rows, clip_sd: float | None) -> Standardise:
    return Standardise.of(fit_scaling(rows()), clip_sd)


def _melbands(columns: Sequence[str], rows: Rows, clip_sd: float | None) -> Melbands:
    if clip_sd is not None:
        raise ConfigurationError(
            f"clip_sd bounds standardised values, found {clip_sd} for the system melband, which takes mel bands "
            "relative to their maximum; leave it out"
        )
    return Melbands.of(columns)


_S0 = "Oramas, Bogdanov, Porter: MediaEval 2018 AcousticBrainz Genre Task baseline"

SYSTEMS = {
    system.name: system
    for system in (
        System("essentia", EssentiaNetwork, EssentiaSettings, _standardise, "sigmoid", TrainingRules(), _S0),
        System("fusion", FusionNetwork, FusionSettings, None, "sigmoid", TrainingRules(), _S0 + ", embedding fusion"),
        System(
            "melband",
            MelbandNetwork,
            MelbandSettings,
            _melbands,
            "sigmoid",
            TrainingRules(batch=1000, max_epochs=500, patience=50),
            "Schreiber: MediaEval 2018 AcousticBrainz Genre Task, melband fully convolutional network",
        ),
    )
}


def find_system(name: str) -> System:
    """The system of that name.

    Raises:
        ConfigurationError: there is none.
    """
    if name not in SYSTEMS:
        raise ConfigurationError(f"unknown system {name!r}; known are {', '.join(sorted(SYSTEMS))}")
    return SYSTEMS[name]
