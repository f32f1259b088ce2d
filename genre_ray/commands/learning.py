"""What `train` and `fuse` share: the examples they learn from, the training itself and the bundle they leave."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, model_validator

from genre_ray.bundles.examples import with_inner
from genre_ray.bundles.files import MODEL, Bundle, write_bundle
from genre_ray.bundles.manifest import (
    VERSION,
    Architecture,
    Data,
    Licences,
    Lineage,
    Manifest,
    Metrics,
    SourceDescription,
    TaskDescription,
)
from genre_ray.bundles.predictor import to_tensors
from genre_ray.bundles.targets import Target
from genre_ray.commands.deciding import decide
from genre_ray.commands.settings import IdentifierConfiguration
from genre_ray.config import Settings
from genre_ray.decisions.fitting import DecisionSettings, ValidationMetrics
from genre_ray.errors import ConfigurationError
from genre_ray.features.spec import FeatureSpec, read_spec
from genre_ray.models.outputs import Output as NetworkOutput
from genre_ray.models.preparation import Preparation
from genre_ray.reports.card import card
from genre_ray.runs import cluster
from genre_ray.runs.identity import Identity, run_id
from genre_ray.runs.output import Document, Output, scratch
from genre_ray.storage import objects, tables
from genre_ray.systems.description import AUDIO, ModelDescription
from genre_ray.systems.system import System, Task
from genre_ray.training.examples import Examples
from genre_ray.training.finding import Split
from genre_ray.training.join import make_examples
from genre_ray.training.learner import Training
from genre_ray.training.loop import Fitted, fit
from genre_ray.training.reading import FeaturesTable
from genre_ray.training.targets import make_outputs
from genre_ray.training.truths import read_truths, start_identifiers

logger = logging.getLogger(__name__)


class Source(Settings):
    """The ground truths of one taxonomy."""

    ground_truth: str = Field(
        description="ground truth TSV, plain or .bz2: that of the training part, or of all parts if it is the only one"
    )
    validation_ground_truth: str | None = Field(None, description="ground truth TSV of the validation part")
    test_ground_truth: str | None = Field(None, description="ground truth TSV of the test part")

    @model_validator(mode="after")
    def _parts(self) -> "Source":
        if self.test_ground_truth and not self.validation_ground_truth:
            raise ValueError("test_ground_truth needs validation_ground_truth; give both, or neither to split by hash")
        return self

    def uris(self) -> dict[str, str]:
        """Ground truths by part; one of `all` when the parts are to be made by hash."""
        if self.validation_ground_truth is None:
            return {"all": self.ground_truth}
        uris = {"train": self.ground_truth, "validation": self.validation_ground_truth}
        return uris | ({"test": self.test_ground_truth} if self.test_ground_truth else {})


class LearningConfiguration(IdentifierConfiguration):
    """Settings of everything that learns from a features table and a ground truth, or several that are joined."""

    features: str | dict[str, str] = Field(
        description="features table, e.g. OUTPUT/features of an ingest; or several, by their modality"
    )
    taxonomy: str | None = Field(
        None,
        description="name of the taxonomy of the labels; with several sources, the one that is predicted by default",
    )
    ground_truth: str | None = Field(
        None,
        description="ground truth TSV, plain or .bz2: that of the training part, or of all parts if it is the only one",
    )
    validation_ground_truth: str | None = Field(None, description="ground truth TSV of the validation part")
    test_ground_truth: str | None = Field(None, description="ground truth TSV of the test part")
    sources: dict[str, Source] = Field(
        {}, description="to train one model for several taxonomies: name of each taxonomy → its ground truths"
    )
    unlabelled: Literal["negative", "masked"] = Field(
        "negative",
        description="with several sources: whether labels of a source are negative or masked (left out of the loss) "
        "for recordings that it did not annotate",
    )
    split: Split = Split()
    decisions: DecisionSettings = DecisionSettings()
    rules: dict[str, Any] = Field({}, description="training rules that differ from the system's published ones")
    network: dict[str, Any] = Field({}, description="network settings that differ from the published ones")
    soft_targets: dict[str, str] = Field(
        {}, description="for each task of the system that learns no labels: table of recording_id and values"
    )
    licences: Licences = Licences()

    @model_validator(mode="after")
    def _one_way(self) -> "LearningConfiguration":
        single = [name for name in Source.model_fields if getattr(self, name) is not None]
        if not self.sources:
            missing = [name for name in ("taxonomy", "ground_truth") if getattr(self, name) is None]
            if missing:
                raise ValueError(f"give taxonomy and ground_truth, or sources; {' and '.join(missing)} missing")
        elif single:
            raise ValueError(f"sources cannot be combined with {', '.join(single)}; move these into sources")
        elif self.taxonomy is not None and self.taxonomy not in self.sources:
            raise ValueError(f"expected taxonomy to be one of {', '.join(self.sources)}, found {self.taxonomy}")
        if len({source.validation_ground_truth is None for source in self.truths().values()}) > 1:
            # Splitting only some sources by hash would put test recordings of others into the training part.
            raise ValueError("give validation_ground_truth for all sources or for none")
        return self

    def truths(self) -> dict[str, Source]:
        """The ground truths of each taxonomy, however they were given."""
        if self.sources:
            return dict(sorted(self.sources.items()))
        return {str(self.taxonomy): Source(**{name: getattr(self, name) for name in Source.model_fields})}

    def tables(self) -> dict[str, str]:
        """The features tables by modality, however they were given."""
        return {AUDIO: self.features} if isinstance(self.features, str) else self.features

    def versions(self) -> dict[str, Any]:
        """The versions of all tables that are learnt from, for the run's identity."""
        uris = {"features": self.tables(), "soft_targets": self.soft_targets}
        return {
            f"{name}_versions": {key: tables.open_table(uri).version() for key, uri in found.items()}
            for name, found in uris.items()
            if found
        }

    def default_taxonomy(self) -> str:
        """The taxonomy that the bundle predicts when it is not asked for another."""
        return self.taxonomy or min(self.sources)


Prepare = Callable[[Examples, Sequence[FeaturesTable]], Preparation]


def learn(
    configuration: LearningConfiguration,
    system: System,
    identity: Identity,
    prepare: Prepare,
    inner: Sequence[Bundle] = (),
) -> int:
    """Train `system` on what the configuration names and write the bundle.

    Args:
        configuration: the job's.
        system: what is trained.
        identity: the run's, which pins the versions of the features tables.
        prepare: (examples, features tables) → what the network's inputs are made with.
        inner: the bundles whose networks the preparation holds.

    Returns:
        The job's exit code.
    """
    network, rules = system.resolve_network(configuration.network), system.resolve_rules(configuration.rules)
    output = Output(configuration.output, identity, configuration.resume)
    document = bundle_document(output.uri)
    if not configuration.dry_run:
        if output.is_complete(document):
            return 0
        cluster.connect()
    specs = read_specs(configuration)
    features = [
        FeaturesTable(objects.absolute(uri), identity["features_versions"][modality], specs[modality].values)
        for modality, uri in configuration.tables().items()
    ]
    examples = _read_examples(configuration, system, features, identity)
    if configuration.dry_run:
        logger.info("would train %s on them with %s", system.name, rules)
        return 0
    preparation, outputs = prepare(examples, features), make_outputs(system, examples)
    # Two trainings at once would mix their files; what is wrong with the inputs was said before, and claims nothing.
    output.claim(document)
    training = Training(system, network, rules, preparation, outputs, tuple(features), examples)
    # Another run's checkpoints are not this one's, even where neither came to its bundle.
    fitted = fit(training, objects.join(scratch(objects.absolute(output.uri)), output.run), configuration.execution)
    logger.info("best of %d epochs is %d", len(fitted.history), fitted.best_epoch + 1)
    model = training.build()
    model.network.load_state_dict(fitted.weights)
    targets, metrics = decide(training, model, configuration.decisions)
    manifest = _describe(configuration, identity, training, model.describe(), fitted, targets, metrics, specs, inner)
    learnt = with_inner(examples.per_recording(), inner)
    output.complete(document, lambda: write_bundle(output.uri, manifest, to_tensors(model), learnt, card(manifest)))
    reached = ", ".join(f"{taxonomy} {found.roc_auc or 0:.4f}" for taxonomy, found in metrics.items())
    logger.info("%s: wrote the bundle; validation ROC AUC: %s", configuration.output, reached)
    return 0


def bundle_document(output: str) -> Document:
    """The document that completes a bundle."""
    return Document(output, MODEL, ("lineage", "identity"))


def read_specs(configuration: LearningConfiguration) -> dict[str, FeatureSpec]:
    """What the features of each modality are."""
    return {modality: read_spec(uri) for modality, uri in configuration.tables().items()}


def _read_examples(
    configuration: LearningConfiguration, system: System, features: Sequence[FeaturesTable], identity: Identity
) -> Examples:
    soft = {task.name for task in system.tasks if task.soft}
    if soft != {*configuration.soft_targets}:
        raise ConfigurationError(
            f"soft_targets: expected tables for {', '.join(sorted(soft)) or 'no task'} of the system {system.name}, "
            f"found {', '.join(configuration.soft_targets) or 'none'}; name a table for each of these tasks"
        )
    identifiers = start_identifiers(configuration.identifiers, configuration.redirects)
    examples = make_examples(
        features,
        read_truths({taxonomy: source.uris() for taxonomy, source in configuration.truths().items()}, identifiers),
        configuration.split,
        identifiers=identifiers,
        limit=configuration.limit,
        masked=configuration.unlabelled == "masked",
        soft={
            task: (objects.absolute(uri), identity["soft_targets_versions"][task])
            for task, uri in configuration.soft_targets.items()
        },
    )
    counts = ", ".join(f"{count} {part}" for part, count in examples.count_parts().items())
    logger.info("%d labels, %d rows of recordings: %s", len(examples.labels), len(examples), counts)
    return examples


def _describe(
    configuration: LearningConfiguration,
    identity: Identity,
    training: Training,
    model: ModelDescription,
    fitted: Fitted,
    targets: Sequence[Target],
    metrics: dict[str, ValidationMetrics],
    specs: Mapping[str, FeatureSpec],
    inner: Sequence[Bundle],
) -> Manifest:
    system, examples = training.system, training.examples
    return Manifest(
        version=VERSION,
        system=system.name,
        source=system.source,
        taxonomy=configuration.default_taxonomy(),
        inputs=dict(specs),
        preprocessing=model.preprocessing,
        architecture=Architecture(inputs=math.prod(training.preparation.shape), network=model.network),
        rules=training.rules.model_dump(mode="json"),
        tasks={task.name: _describe_task(task, training.outputs[task.name], examples) for task in system.tasks},
        targets={target.taxonomy: target.describe() for target in targets},
        metrics=Metrics(targets=metrics, best_epoch=fitted.best_epoch + 1, history=tuple(fitted.history)),
        data=_data(examples, configuration.unlabelled),
        lineage=Lineage(run_id=run_id(identity), identity=identity, inner=tuple(bundle.bundle_id for bundle in inner)),
        licences=configuration.licences,
    )


def _describe_task(task: Task, output: NetworkOutput, examples: Examples) -> TaskDescription:
    labels = tuple(map(str, range(output.labels))) if task.soft else examples.labels
    factors = output.width if output.name == "cosine" else None
    return TaskDescription(kind=output.kind, output=output.name, labels=labels, factors=factors)


def _data(examples: Examples, unlabelled: Literal["negative", "masked"]) -> Data:
    return Data(
        recordings=examples.count_parts(),
        rows=len(examples),
        sources={
            taxonomy: SourceDescription(recordings=found.coverage.stated, unmatched_share=round(found.coverage.lost, 6))
            for taxonomy, found in examples.taxonomies.items()
        },
        extractors=dict(examples.extractors),
        unlabelled=unlabelled,
    )
