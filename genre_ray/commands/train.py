"""`train`: a features table + ground truth + a system's name → a bundle."""

from collections.abc import Sequence

from pydantic import Field

from genre_ray.commands.learning import LearningConfiguration, learn, read_specs
from genre_ray.errors import ConfigurationError
from genre_ray.models.preparation import Preparation
from genre_ray.runs.identity import make_identity
from genre_ray.systems.system import find_system
from genre_ray.training.examples import Examples
from genre_ray.training.passes import map_rows
from genre_ray.training.reading import FeaturesTable


class TrainConfiguration(LearningConfiguration):
    """Train a model for one taxonomy or for several, and write a bundle to OUTPUT."""

    system: str = Field(
        "essentia", description="kind of model: essentia (S0, over 2669 features) or melband (S1, over mel bands)"
    )
    clip_sd: float | None = Field(
        None, gt=0, description="clip standardised inputs to this many standard deviations; default: no clipping"
    )


def run(configuration: TrainConfiguration) -> int:
    """Carry the job out; return its exit code."""
    system = find_system(configuration.system)
    prepare = system.prepare
    if prepare is None:
        raise ConfigurationError(f"the system {system.name} learns from bundles, found it in train; use the job fuse")
    specs = read_specs(configuration)
    system.check(specs, ", ".join(configuration.tables().values()))
    identity = make_identity("train", configuration.identity(), **configuration.versions())

    def prepared(examples: Examples, features: Sequence[FeaturesTable]) -> Preparation:
        training = examples.of("train").rows
        return prepare(specs, lambda function: map_rows(features, training, function), configuration.clip_sd)

    return learn(configuration, system, identity, prepared)
