"""S0's feature network: standardised features → dense layers → a sigmoid for each label."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from genre_ray.features.scaling import merge_moments, moments
from genre_ray.features.spec import FeatureSpec
from genre_ray.models.essentia import EssentiaNetwork, EssentiaSettings
from genre_ray.models.preparation import Standardise
from genre_ray.systems.description import AUDIO, GENRES
from genre_ray.systems.system import MapRows, Requirement, System, Task


def _prepare(specs: Mapping[str, FeatureSpec], map_rows: MapRows, clip_sd: float | None) -> Standardise:
    return Standardise.of(merge_moments(map_rows(moments)), clip_sd)


def _network(shape: tuple[int, ...], widths: Mapping[str, int], settings: Any) -> nn.Module:
    (inputs,) = shape
    return EssentiaNetwork(inputs, widths[GENRES], settings)


SYSTEM = System(
    name="essentia",
    source="Oramas, Bogdanov, Porter: MediaEval 2018 AcousticBrainz Genre Task baseline",
    inputs={AUDIO: Requirement(("columns",))},
    preparation=Standardise,
    prepare=_prepare,
    network=_network,
    settings=EssentiaSettings,
    tasks=(Task(GENRES, "sigmoid"),),
)
