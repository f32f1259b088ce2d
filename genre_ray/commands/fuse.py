"""`fuse`: several bundles + a target taxonomy → a fusion bundle, which holds the networks it fuses."""

from pydantic import Field

from genre_ray.bundles.examples import read_examples, trained_on
from genre_ray.bundles.files import Bundle, read_bundle
from genre_ray.bundles.inputs import check_input
from genre_ray.bundles.predictor import build
from genre_ray.commands.learning import LearningConfiguration, learn
from genre_ray.errors import InputError
from genre_ray.features.spec import read_spec
from genre_ray.models.essentia import EssentiaNetwork
from genre_ray.models.preparation import Embeddings, Standardise
from genre_ray.runs.identity import make_identity
from genre_ray.storage import tables
from genre_ray.training.examples import Examples
from genre_ray.training.systems import find_system


class FuseConfiguration(LearningConfiguration):
    """Train a network over the embeddings of several bundles, and write a bundle to OUTPUT."""

    bundles: tuple[str, ...] = Field(min_length=1, description="bundles of the system essentia, over the same features")


def run(configuration: FuseConfiguration) -> int:
    """Carry the job out; return its exit code."""
    spec = read_spec(configuration.features)
    sources = [read_bundle(uri) for uri in configuration.bundles]
    for source in sources:
        check_input(source, spec, configuration.features)
    embeddings = Embeddings([_source(source) for source in sources])
    identity = make_identity(
        "fuse",
        configuration.identity(),
        features_version=tables.open_table(configuration.features).version(),
        bundles=[source.bundle_id for source in sources],
    )

    def prepare(examples: Examples, version: int) -> Embeddings:
        for source in sources:
            _refuse_leak(source, examples)
        return embeddings

    return learn(configuration, find_system("fusion"), identity, prepare, sources)


def _source(bundle: Bundle) -> tuple[Standardise, EssentiaNetwork]:
    preparation, network = build(bundle)
    if not isinstance(preparation, Standardise) or not isinstance(network, EssentiaNetwork):
        raise InputError(
            f"{bundle.uri}: expected a bundle of the system essentia to fuse, found {bundle.manifest.system}; "
            "name bundles of that system"
        )
    return preparation, network


def _refuse_leak(source: Bundle, examples: Examples) -> None:
    """A network's embeddings of what it learnt from are no fair validation or test of what is built on them."""
    leaked = trained_on(read_examples(source.uri)).intersection(
        examples.recording_ids[examples.parts != "train"].tolist()
    )
    if leaked:
        raise InputError(
            f"{source.uri}: expected a bundle that has not learnt from this fusion's validation and test recordings, "
            f"found {len(leaked)} of them in its training part, e.g. {min(leaked)}; use the same split for both"
        )
