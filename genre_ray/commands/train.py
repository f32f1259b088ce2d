"""`train`: a features table + ground truth + a system's name → a bundle."""

from pydantic import Field

from genre_ray.commands.learning import LearningConfiguration, learn
from genre_ray.errors import ConfigurationError
from genre_ray.features.spec import read_spec
from genre_ray.models.preparation import Preparation
from genre_ray.runs.identity import make_identity
from genre_ray.storage import tables
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.systems import find_system


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
    version = tables.open_table(configuration.features).version()
    identity = make_identity("train", configuration.identity(), features_version=version)

    def prepared(examples: Examples, version: int) -> Preparation:
        training = examples.of("train").rows
        return prepare(
            read_spec(configuration.features).columns,
            lambda: load_rows(configuration.features, version, training),
            configuration.clip_sd,
        )

    return learn(configuration, system, identity, prepared)
