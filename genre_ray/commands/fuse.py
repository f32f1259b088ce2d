"""`fuse`: several bundles + a target taxonomy → a fusion bundle, which holds the networks it fuses."""

from pydantic import Field

from genre_ray.commands.learning import LearningConfiguration, learn
from genre_ray.errors import InputError
from genre_ray.features.table import table_columns
from genre_ray.inference.predictor import build, check_columns
from genre_ray.models.essentia import EssentiaNetwork
from genre_ray.models.preparation import Embeddings, Standardise
from genre_ray.runs.identity import make_identity
from genre_ray.storage import bundles, tables
from genre_ray.storage.bundles import Bundle
from genre_ray.training.systems import find_system


class FuseConfiguration(LearningConfiguration):
    """Train a network over the embeddings of several bundles; OUTPUT becomes a bundle."""

    bundles: tuple[str, ...] = Field(min_length=1, description="bundles of the system essentia, over the same features")


def run(configuration: FuseConfiguration) -> int:
    """Carry the job out; return its exit code."""
    columns = table_columns(configuration.features)
    sources = [bundles.read_bundle(uri) for uri in configuration.bundles]
    for source in sources:
        check_columns(source, columns, configuration.features)
    embeddings = Embeddings([_source(source) for source in sources])
    identity = make_identity(
        "fuse",
        configuration.identity(),
        features_version=tables.open_table(configuration.features).version(),
        bundles=[source.bundle_id for source in sources],
    )
    return learn(configuration, find_system("fusion"), identity, lambda examples, version: embeddings)


def _source(bundle: Bundle) -> tuple[Standardise, EssentiaNetwork]:
    preparation, network = build(bundle)
    if not isinstance(preparation, Standardise) or not isinstance(network, EssentiaNetwork):
        raise InputError(
            f"{bundle.uri}: expected a bundle of the system essentia to fuse, found {bundle.model['system']}; "
            "name the bundles that it was fused from"
        )
    return preparation, network
