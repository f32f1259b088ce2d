"""`train`: a features table + ground truth + a system's name → a bundle."""

from pydantic import Field

from genre_ray.commands.learning import LearningConfiguration, learn
from genre_ray.features.scaling import fit_scaling
from genre_ray.models.preparation import Standardise
from genre_ray.runs.identity import make_identity
from genre_ray.storage import tables
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.systems import find_system


class TrainConfiguration(LearningConfiguration):
    """Train one model for one taxonomy; OUTPUT becomes a bundle."""

    system: str = Field("essentia", description="what to train: essentia (S0's network over 2669 features)")
    clip_sd: float | None = Field(
        None, gt=0, description="bound standardised values to so many deviations; off as published"
    )


def run(configuration: TrainConfiguration) -> int:
    """Carry the job out; return its exit code."""
    version = tables.open_table(configuration.features).version()
    identity = make_identity("train", configuration.identity(), features_version=version)

    def standardise(examples: Examples, version: int) -> Standardise:
        rows = load_rows(configuration.features, version, examples.of("train").rows)
        return Standardise.of(fit_scaling(rows), configuration.clip_sd)

    return learn(configuration, find_system(configuration.system), identity, standardise)
