"""What `train` and `fuse` share: the examples they learn from, the training itself and the bundle they leave."""

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from genre_ray.catalog.ground_truth import read_ground_truth
from genre_ray.config import JobConfiguration
from genre_ray.decisions.thresholds import plug_in_thresholds
from genre_ray.features.columns import schema_hash
from genre_ray.features.table import table_columns
from genre_ray.inference.predictor import Predictor, to_tensors
from genre_ray.inference.recordings import average_submissions
from genre_ray.labels.space import label_matrix
from genre_ray.metrics.ranking import average_precision, roc_auc
from genre_ray.models.preparation import Preparation
from genre_ray.reports.card import card
from genre_ray.runs import cluster
from genre_ray.runs.identity import Identity, claim, refuse_other, run_id
from genre_ray.storage import bundles, objects, tables
from genre_ray.storage.bundles import Bundle
from genre_ray.training.examples import Examples, load_rows
from genre_ray.training.join import Split, make_examples
from genre_ray.training.learner import Task
from genre_ray.training.loop import Fitted, fit
from genre_ray.training.systems import System

logger = logging.getLogger(__name__)


class LearningConfiguration(JobConfiguration):
    """Settings of everything that learns from a features table and a ground truth."""

    features: str = Field(description="features table, e.g. OUTPUT/features of an ingest")
    taxonomy: str = Field(description="name of the taxonomy that the labels belong to")
    ground_truth: str = Field(description="TSV of the task, also .bz2; train's, or all parts' when it is the only one")
    validation_ground_truth: str | None = Field(None, description="TSV of the validation part")
    test_ground_truth: str | None = Field(None, description="TSV of the test part")
    split: Split = Split()
    rules: dict[str, Any] = Field({}, description="training rules that differ from the system's published ones")
    network: dict[str, Any] = Field({}, description="network settings that differ from the published ones")

    @model_validator(mode="after")
    def _parts(self) -> "LearningConfiguration":
        if self.test_ground_truth and not self.validation_ground_truth:
            raise ValueError("test_ground_truth needs validation_ground_truth too: name both, or split by hash")
        return self


def learn(
    configuration: LearningConfiguration,
    system: System,
    identity: Identity,
    prepare: Callable[[Examples, int], Preparation],
) -> int:
    """Train `system` on what the configuration names and write the bundle.

    Args:
        configuration: the job's.
        system: what is trained.
        identity: the run's, which pins the version of the features table.
        prepare: (examples, version of the table) → what the network's inputs are made with.

    Returns:
        The job's exit code.
    """
    network, rules = system.resolve_network(configuration.network), system.resolve_rules(configuration.rules)
    if not configuration.dry_run and _already_done(configuration, identity):
        return 0
    version = identity["features_version"]
    table_columns(configuration.features)  # refuses what is not a features table
    examples = _read_examples(configuration, version)
    if configuration.dry_run:
        logger.info("would train %s on them with %s", system.name, rules)
        return 0
    scratch = objects.join(objects.absolute(configuration.output), "_run")
    # Two trainings at once would mix their files; what is wrong with the inputs was said before, and claims nothing.
    claim(objects.join(scratch, "claim.json"), configuration.output, identity, resume=configuration.resume)
    # Workers have working directories of their own.
    features = objects.absolute(configuration.features)
    task = Task(system, network, rules, prepare(examples, version), features, version, examples)
    cluster.connect()
    # Another run's checkpoints are not this one's, even where neither came to its bundle.
    fitted = fit(task, objects.join(scratch, run_id(identity)), configuration.execution)
    logger.info("%s: best of %d epochs is %d", configuration.taxonomy, len(fitted.history), fitted.best_epoch + 1)
    model = _describe(configuration, identity, task)
    tensors = to_tensors(task.preparation, fitted.weights)
    scores, truth = _validation_scores(task, Predictor(Bundle(configuration.output, "", model, tensors)))
    model["thresholds"] = plug_in_thresholds(truth, scores).tolist()
    model["metrics"] = _metrics(fitted, scores, truth)
    if not bundles.write_bundle(configuration.output, model, tensors, examples.per_recording(), card(model)):
        _already_done(configuration, identity)  # another run's is an error, this run's is as good
        return 0
    objects.delete_folder(scratch)
    logger.info("%s: bundle written, validation ROC AUC %.4f", configuration.output, model["metrics"]["roc_auc"] or 0)
    return 0


def _already_done(configuration: LearningConfiguration, identity: Identity) -> bool:
    """Whether the output holds this run's bundle.

    Raises:
        OutputTakenError: it holds another's, or this one's without `resume`.
    """
    if not bundles.is_bundle(configuration.output):
        return False
    _, model = bundles.read_model(configuration.output)
    refuse_other(configuration.output, model["lineage"]["identity"], identity, resume=configuration.resume)
    logger.info("%s: nothing to do, run %s is complete", configuration.output, run_id(identity))
    return True


def _read_examples(configuration: LearningConfiguration, version: int) -> Examples:
    if configuration.validation_ground_truth is None:
        uris = {"all": configuration.ground_truth}
    else:
        uris = {"train": configuration.ground_truth, "validation": configuration.validation_ground_truth}
        if configuration.test_ground_truth:
            uris["test"] = configuration.test_ground_truth
    truths = {part: read_ground_truth(uri) for part, uri in uris.items()}
    examples = make_examples(configuration.features, version, truths, configuration.split, configuration.limit)
    counts = ", ".join(f"{count} {part}" for part, count in sorted(Counter(examples.parts.tolist()).items()))
    logger.info("%s: %d labels, rows: %s", configuration.taxonomy, len(examples.labels), counts)
    return examples


def _describe(configuration: LearningConfiguration, identity: Identity, task: Task) -> dict[str, Any]:
    columns, labels = table_columns(configuration.features), task.examples.labels
    return {
        "system": task.system.name,
        "task": task.system.outputs.task,
        "source": task.system.source,
        "taxonomy": configuration.taxonomy,
        "labels": list(labels),
        "thresholds": [1.0] * len(labels),
        "calibration": "none",
        "architecture": {
            "inputs": task.preparation.width,
            "network": task.network.model_dump(mode="json"),
            "output": task.system.output,
        },
        "preprocessing": task.preparation.describe(),
        "input": {"schema_hash": schema_hash(columns), "columns": list(columns)},
        "rules": task.rules.model_dump(mode="json"),
        "data": _data(task),
        "lineage": {"run_id": run_id(identity), "identity": identity},
    }


def _data(task: Task) -> dict[str, Any]:
    rows = task.examples.of("train").rows
    extractors: Counter[str] = Counter()
    start = 0
    for batch in tables.read_batches(task.features_uri, ["extractor"], version=task.features_version, batch_rows=65536):
        low, high = np.searchsorted(rows, [start, start + batch.num_rows])
        extractors.update(batch.column("extractor").take(pa.array(rows[low:high] - start)).to_pylist())
        start += batch.num_rows
    recordings = task.examples.per_recording()
    return {
        "recordings": dict(sorted(Counter(recordings["part"].to_pylist()).items())),
        "rows": len(task.examples),
        "extractors": dict(extractors.most_common()),
    }


def _validation_scores(task: Task, predictor: Predictor) -> tuple[np.ndarray[Any, Any], Any]:
    """Scores and truth of the validation recordings, a recording's submissions averaged."""
    validation = task.examples.of("validation")
    batches = load_rows(task.features_uri, task.features_version, validation.rows)
    scores = np.concatenate([predictor.scores(batch) for batch in batches])
    recordings, means = average_submissions(validation.recording_ids.tolist(), scores)
    label_sets = dict(zip(validation.recording_ids.tolist(), validation.label_sets, strict=True))
    return means, label_matrix([label_sets[recording] for recording in recordings], task.examples.labels)


def _metrics(fitted: Fitted, scores: np.ndarray[Any, Any], truth: Any) -> dict[str, Any]:
    return {
        "part": "validation",
        "roc_auc": roc_auc(truth, scores).macro,
        "average_precision": average_precision(truth, scores).macro,
        "best_epoch": fitted.best_epoch + 1,
        "epochs": len(fitted.history),
        "history": fitted.history,
    }
