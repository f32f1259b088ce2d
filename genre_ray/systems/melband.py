"""S1: mel-band statistics → a fully convolutional network → a sigmoid for each label."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from genre_ray.errors import ConfigurationError
from genre_ray.features.spec import FeatureSpec
from genre_ray.models.melband import MelbandNetwork, MelbandSettings
from genre_ray.models.preparation import Melbands
from genre_ray.systems.description import AUDIO, GENRES
from genre_ray.systems.system import MapRows, Requirement, System, Task, TrainingRules


def _prepare(specs: Mapping[str, FeatureSpec], map_rows: MapRows, clip_sd: float | None) -> Melbands:
    if clip_sd is not None:
        raise ConfigurationError(
            f"clip_sd bounds standardised values, found {clip_sd} for the system melband, which takes mel bands "
            "relative to their maximum; leave it out"
        )
    return Melbands.of(specs[AUDIO].columns)


def _network(shape: tuple[int, ...], widths: Mapping[str, int], settings: Any) -> nn.Module:
    (inputs,) = shape
    return MelbandNetwork(inputs, widths[GENRES], settings)


SYSTEM = System(
    name="melband",
    source="Schreiber: MediaEval 2018 AcousticBrainz Genre Task, melband fully convolutional network",
    inputs={AUDIO: Requirement(("columns",))},
    preparation=Melbands,
    prepare=_prepare,
    network=_network,
    settings=MelbandSettings,
    tasks=(Task(GENRES, "sigmoid"),),
    rules=TrainingRules(batch=1000, max_epochs=500, patience=50),
)
