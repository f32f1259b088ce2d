"""What `train` and `fuse` share: the examples they learn from, the training itself and the bundle they leave."""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from genre_ray.bundles.examples import with_inner
from genre_ray.bundles.files import MODEL, Bundle, write_bundle
from genre_ray.bundles.manifest import (
    AUDIO,
    GENRES,
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
from genre_ray.bundles.predictor import Predictor, to_tensors
from genre_ray.bundles.targets import Target
from genre_ray.commands.settings import IdentifierConfiguration
from genre_ray.config import Settings
from genre_ray.decisions.fitting import DecisionSettings, ValidationMetrics, fit_policy, validation_metrics
from genre_ray.features.spec import read_spec
from genre_ray.labels.space import label_matrix
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.models.preparation import Preparation
from genre_ray.predictions.aggregate import average_submissions
from genre_ray.reports.card import card
from genre_ray.runs import cluster
from genre_ray.runs.identity import Identity, run_id
from genre_ray.runs.output import Document, Output, scratch
from genre_ray.storage import objects, tables
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.join import Split, join_taxonomies, make_examples
from genre_ray.training.learner import Task
from genre_ray.training.loop import Fitted, fit
from genre_ray.training.systems import System
from genre_ray.truth.ground_truth import read_ground_truth

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

    features: str = Field(description="features table, e.g. OUTPUT/features of an ingest")
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
    rules: dict[str, Any] = Field({}, description="training rules to change, e.g. learning_rate")
    network: dict[str, Any] = Field({}, description="network settings to change; default: as published")
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

    def default_taxonomy(self) -> str:
        """The taxonomy that the bundle predicts when it is not asked for another."""
        return self.taxonomy or min(self.sources)


def learn(
    configuration: LearningConfiguration,
    system: System,
    identity: Identity,
    prepare: Callable[[Examples, int], Preparation],
    inner: Sequence[Bundle] = (),
) -> int:
    """Train `system` on what the configuration names and write the bundle.

    Args:
        configuration: the job's.
        system: what is trained.
        identity: the run's, which pins the version of the features table.
        prepare: (examples, version of the table) → what the network's inputs are made with.
        inner: the bundles whose networks the preparation holds.

    Returns:
        The job's exit code.
    """
    network, rules = system.resolve_network(configuration.network), system.resolve_rules(configuration.rules)
    output = Output(configuration.output, identity, configuration.resume)
    document = bundle_document(output.uri)
    if not configuration.dry_run and output.is_complete(document):
        return 0
    version = identity["features_version"]
    read_spec(configuration.features)  # refuses what is not a features table
    examples = _read_examples(configuration, version)
    if configuration.dry_run:
        logger.info("would train %s on them with %s", system.name, rules)
        return 0
    preparation = prepare(examples, version)
    # Two trainings at once would mix their files; what is wrong with the inputs was said before, and claims nothing.
    output.claim(document)
    # Workers have working directories of their own.
    features = objects.absolute(configuration.features)
    task = Task(system, network, rules, preparation, features, version, examples)
    cluster.connect()
    # Another run's checkpoints are not this one's, even where neither came to its bundle.
    storage = objects.join(scratch(objects.absolute(output.uri)), output.run)
    fitted = fit(task, storage, configuration.execution)
    logger.info("best of %d epochs is %d", len(fitted.history), fitted.best_epoch + 1)
    trained = task.build_network()
    trained.load_state_dict(fitted.weights)
    targets, metrics = _decide(task, Predictor(task.preparation, trained, system.outputs), configuration.decisions)
    manifest = _describe(configuration, identity, task, fitted, targets, metrics, inner)
    tensors = to_tensors(preparation, fitted.weights)
    learnt = with_inner(examples.per_recording(), inner)
    output.complete(document, lambda: write_bundle(output.uri, manifest, tensors, learnt, card(manifest)))
    reached = ", ".join(f"{taxonomy} {found.roc_auc or 0:.4f}" for taxonomy, found in metrics.items())
    logger.info("%s: bundle written, validation ROC AUC: %s", configuration.output, reached)
    return 0


def bundle_document(output: str) -> Document:
    """The document that completes a bundle."""
    return Document(output, MODEL, ("lineage", "identity"))


def _read_examples(configuration: LearningConfiguration, version: int) -> Examples:
    sources, identifiers = {}, configuration.read_identifiers()
    for taxonomy, source in configuration.truths().items():
        truths = {part: read_ground_truth(uri) for part, uri in source.uris().items()}
        split, limit = configuration.split, configuration.limit
        found = make_examples(configuration.features, version, truths, split, limit, identifiers)
        logger.info("%s: %s", taxonomy, _counted(found))
        sources[taxonomy] = found
    joined = join_taxonomies(sources, masked=configuration.unlabelled == "masked")
    if len(sources) > 1:
        logger.info("joined: %s", _counted(joined))
    return joined


def _counted(examples: Examples) -> str:
    counts = ", ".join(f"{count} {part}" for part, count in sorted(Counter(examples.parts.tolist()).items()))
    return f"{len(examples.labels)} labels, rows: {counts}"


def _describe(
    configuration: LearningConfiguration,
    identity: Identity,
    task: Task,
    fitted: Fitted,
    targets: Sequence[Target],
    metrics: dict[str, ValidationMetrics],
    inner: Sequence[Bundle],
) -> Manifest:
    return Manifest(
        version=VERSION,
        system=task.system.name,
        source=task.system.source,
        taxonomy=configuration.default_taxonomy(),
        inputs={AUDIO: read_spec(configuration.features)},
        preprocessing=task.preparation.describe(),
        architecture=Architecture(inputs=task.preparation.width, network=task.network.model_dump(mode="json")),
        rules=task.rules.model_dump(mode="json"),
        tasks={
            GENRES: TaskDescription(
                kind=task.system.outputs.task, output=task.system.output, labels=task.examples.labels
            )
        },
        targets={target.taxonomy: target.describe() for target in targets},
        metrics=Metrics(targets=metrics, best_epoch=fitted.best_epoch + 1, history=tuple(fitted.history)),
        data=_data(task, configuration.unlabelled),
        lineage=Lineage(run_id=run_id(identity), identity=identity, inner=tuple(bundle.bundle_id for bundle in inner)),
        licences=configuration.licences,
    )


def _data(task: Task, unlabelled: Literal["negative", "masked"]) -> Data:
    rows = task.examples.of("train").rows
    extractors: Counter[str] = Counter()
    start = 0
    for batch in tables.read_batches(task.features_uri, ["extractor"], version=task.features_version, batch_rows=65536):
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        extractors.update(batch.column("extractor").take(pa.array(rows[low:high] - start)).to_pylist())
        start += batch.num_rows
    parts = dict(zip(task.examples.recording_ids.tolist(), task.examples.parts.tolist(), strict=True))
    return Data(
        recordings=dict(sorted(Counter(parts.values()).items())),
        rows=len(task.examples),
        sources={
            taxonomy: SourceDescription(recordings=found.coverage.stated, unmatched_share=round(found.coverage.lost, 6))
            for taxonomy, found in task.examples.taxonomies.items()
        },
        extractors={name or "unknown": count for name, count in extractors.most_common()},
        unlabelled=unlabelled,
    )


def _decide(
    task: Task, predictor: Predictor, settings: DecisionSettings
) -> tuple[list[Target], dict[str, ValidationMetrics]]:
    """Each taxonomy's target and metrics, from the validation recordings that it annotated itself."""
    validation = task.examples.of("validation")
    batches = load_rows(task.features_uri, task.features_version, validation.rows)
    scores = np.concatenate([predictor.scores(batch) for batch in batches])
    targets, metrics = [], {}
    for taxonomy, annotations in validation.taxonomies.items():
        there = annotations.annotated
        ids = validation.recording_ids[there].tolist()
        recordings, means = average_submissions(ids, scores[np.ix_(there, annotations.columns)])
        label_sets = dict(zip(ids, annotations.label_sets[there], strict=True))
        truth = label_matrix([label_sets[recording] for recording in recordings], annotations.labels)
        pairs = Taxonomy.of_names(annotations.labels).edges(annotations.labels)
        fitted = fit_policy(annotations.labels, pairs, truth, means, settings)
        targets.append(Target(taxonomy, annotations.columns, fitted.policy, tuple(pairs)))
        metrics[taxonomy] = validation_metrics(fitted, truth, means)
    return targets, metrics
