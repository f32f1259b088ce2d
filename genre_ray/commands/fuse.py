"""`fuse`: several bundles + a target taxonomy → a fusion bundle, which holds the models that it fuses."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from genre_ray.bundles.examples import read_examples, trained_on
from genre_ray.bundles.files import Bundle, read_bundle
from genre_ray.bundles.inputs import check_input
from genre_ray.bundles.predictor import build
from genre_ray.commands.learning import LearningConfiguration, learn, read_specs
from genre_ray.errors import InputError
from genre_ray.features.spec import FeatureSpec
from genre_ray.labels.splits import PARTS
from genre_ray.runs.identity import make_identity
from genre_ray.systems.fusion import SYSTEM, Embeddings
from genre_ray.systems.model import Model
from genre_ray.training.examples import Examples
from genre_ray.training.reading import FeaturesTable


class FuseConfiguration(LearningConfiguration):
    """Train a network over the embeddings of several bundles, and write a bundle to OUTPUT."""

    bundles: tuple[str, ...] = Field(
        min_length=1, description="bundles whose networks offer an embedding, each of one of the features tables"
    )


def run(configuration: FuseConfiguration) -> int:
    """Carry the job out; return its exit code."""
    specs = read_specs(configuration)
    sources = [read_bundle(uri) for uri in configuration.bundles]
    modalities = [_modality(source, specs, configuration.tables()) for source in sources]
    embeddings = Embeddings([_model(source) for source in sources], modalities)
    identity = make_identity(
        "fuse",
        configuration.identity(),
        **configuration.versions(),
        bundles=[source.bundle_id for source in sources],
    )

    def prepare(examples: Examples, features: Sequence[FeaturesTable]) -> Embeddings:
        for source in sources:
            _refuse_leak(source, examples)
        return embeddings

    return learn(configuration, SYSTEM, identity, prepare, sources)


def _model(bundle: Bundle) -> Model:
    model = build(bundle)
    if model.embedding_width is None:
        raise InputError(
            f"{bundle.uri}: expected a bundle whose network offers an embedding, found the system "
            f"{bundle.manifest.system}, whose network offers none; name other bundles"
        )
    return model


def _modality(bundle: Bundle, specs: Mapping[str, FeatureSpec], uris: Mapping[str, str]) -> int:
    """The place of the features table that the bundle takes."""
    if len(bundle.manifest.inputs) > 1:
        raise InputError(
            f"{bundle.uri}: expected a bundle of one features table to fuse, found one of "
            f"{', '.join(bundle.manifest.inputs)}; fuse the bundles that it fuses"
        )
    (wanted,) = bundle.manifest.inputs.values()
    for place, spec in enumerate(specs.values()):
        if spec.hash == wanted.hash:
            return place
    (modality,) = bundle.manifest.inputs
    name = next(iter(specs))
    check_input(bundle, specs[name], uris[name], modality)
    raise AssertionError("unreachable")


def _refuse_leak(source: Bundle, examples: Examples) -> None:
    """A network's embeddings of what it learnt from are no fair validation or test of what is built on them."""
    held_out = examples.recording_ids.filter(pa.array(examples.parts != PARTS.index("train")))
    learnt = pa.array(trained_on(read_examples(source.uri)), pa.string())
    leaked = held_out.filter(pc.is_in(held_out, value_set=learnt))
    if len(leaked):
        raise InputError(
            f"{source.uri}: expected a bundle that has not learnt from this fusion's validation and test recordings, "
            f"found {len(leaked)} of them in its training part, e.g. {leaked[0]}; use the same split for both"
        )
