"""How a trained model's scores become labels, fitted on its validation recordings by workers."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from genre_ray.bundles.targets import Target
from genre_ray.decisions.fitting import DecisionSettings, ValidationMetrics, fit_policy, validation_metrics
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.predictions.aggregate import average_submissions
from genre_ray.runs.tasks import put, start
from genre_ray.systems.model import Model
from genre_ray.training.examples import Examples
from genre_ray.training.learner import Training
from genre_ray.training.passes import Batches, start_passes

Matrix = NDArray[np.float32]


def decide(
    training: Training, model: Model, settings: DecisionSettings
) -> tuple[list[Target], dict[str, ValidationMetrics]]:
    """Each taxonomy's target and metrics, from the validation recordings that it annotated itself.

    Scores of all validation rows and labels would not fit a driver: tasks compute them, and a task per taxonomy fits.
    """
    validation = training.examples.of("validation")
    task = training.system.main.name
    single_label = model.output(task).kind == "single_label"
    scores = start_passes(training.features, validation.rows, _scores, put(model.eval()))
    examples = put(validation)
    fitted = {
        taxonomy: start(_fit, taxonomy, task, single_label, settings, examples, *scores)
        for taxonomy in validation.taxonomies
    }
    found = {taxonomy: result.get() for taxonomy, result in fitted.items()}
    return [target for target, _ in found.values()], {taxonomy: metrics for taxonomy, (_, metrics) in found.items()}


def _scores(batches: Batches, model: Model) -> Matrix:
    """(rows, labels), the scores of rows."""
    return np.concatenate([model.scores_of(*batch) for batch in batches])


def _fit(
    taxonomy: str,
    task: str,
    single_label: bool,
    settings: DecisionSettings,
    validation: Examples,
    *scores: Matrix,
) -> tuple[Target, ValidationMetrics]:
    """A taxonomy's target and metrics from the scores of the validation rows, (rows, labels) in several pieces."""
    annotations = validation.taxonomies[taxonomy]
    there = annotations.annotated[validation.recordings]
    ends = np.cumsum([len(piece) for piece in scores])[:-1]
    own = [piece[np.ix_(rows, annotations.columns)] for piece, rows in zip(scores, np.split(there, ends), strict=True)]
    recordings = validation.recordings[there]
    ids = validation.recording_ids.take(pa.array(recordings)).to_pylist()
    # Recordings are sorted by their ids in the examples too.
    _, means = average_submissions(ids, np.concatenate(own))
    truth = annotations.matrix[np.unique(recordings)]
    pairs = Taxonomy.of_names(annotations.labels).edges(annotations.labels)
    fitted = fit_policy(annotations.labels, pairs, truth, means, settings, single_label=single_label)
    target = Target(taxonomy, annotations.columns, fitted.policy, tuple(pairs), task)
    return target, validation_metrics(fitted, truth, means)
