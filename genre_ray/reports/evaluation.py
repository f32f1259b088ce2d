"""Evaluate predictions and the baselines against a ground truth.

`genre_ray.metrics` computes every number; this module chooses what is compared. Recordings of the truth without a
prediction, such as those of rejected documents, are left out and counted.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.decisions.thresholds import NO_THRESHOLD
from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import Taxonomy, is_subgenre
from genre_ray.metrics.baselines import majority_branch, popularity, random_label_sets
from genre_ray.metrics.confusion import most_confused
from genre_ray.metrics.official import add_parents, label_scores, official_scores
from genre_ray.metrics.ranking import Ranking, average_precision, precision_recall_curve, roc_auc
from genre_ray.metrics.reliability import Reliability
from genre_ray.reports.inputs import AllScores, LabelSet, Predictions, Truth
from genre_ray.reports.result import (
    Answer,
    Coverage,
    Curve,
    EvaluationResult,
    Histogram,
    LabelResult,
    Means,
    defined,
)
from genre_ray.reports.trust import abstention, calibrated, consistency, reliability_of

FEW_RECORDINGS = 1000
"""With fewer recordings than this a report warns of chance. With this many, the standard error of a mean F is 0.01."""

LARGEST_LABELS = 6
CURVE_POINTS = 200
BINS = 20

Rankings = tuple[Ranking, Ranking]
"""ROC AUC and average precision."""


def evaluate(name: str, predictions: Predictions, truth: Truth, *, seed: int = 0) -> EvaluationResult:
    """Evaluate predictions against a ground truth.

    Args:
        name: name of the evaluation in the report.
        predictions: predictions of recordings of the truth.
        truth: the true labels.
        seed: seed of the random baseline.

    Raises:
        InputError: no recording of the truth has a prediction.
    """
    true_labels = dict(zip(truth.recording_ids, truth.labels, strict=True))
    recordings = len(predictions.recording_ids)
    if not recordings:
        raise InputError(
            f"{predictions.uri}: none of its {predictions.unknown} recordings is among the {len(true_labels)} "
            f"recordings of {truth.uri}; check that both belong to the same catalog and use the same recording ids"
        )
    targets = [true_labels[recording_id] for recording_id in predictions.recording_ids]
    training = sorted(truth.training or truth.labels)
    scores = predictions.scores
    vocabulary = {label for labels in (*targets, *predictions.labels, *training) for label in labels}
    labels = Taxonomy.of_names(vocabulary.union(scores.labels if scores else ())).labels
    true, given = _matrix(targets, labels), _matrix(predictions.labels, labels)

    columns = _columns(scores.labels, labels) if scores else np.zeros(0, dtype=np.intp)
    ranked = true[:, columns]
    rankings = _rankings(ranked, scores.values) if scores else None
    system = _answer(true, given, labels, rankings)
    trusted = reliability_of(ranked, scores.values if scores else None)
    rows = _label_results(true, given, labels, scores, rankings, trusted)
    largest = [row for row in rows if row.roc_auc is not None][:LARGEST_LABELS]
    return EvaluationResult(
        name=name,
        taxonomy=predictions.taxonomy,
        model_ids=predictions.model_ids,
        predictions=predictions.uri,
        truth=truth.uri,
        part=truth.part,
        level=predictions.level,
        calibration=predictions.calibration,
        coverage=Coverage(len(true_labels), recordings, len(true_labels) - recordings, predictions.unknown),
        comparable=_digest(predictions.recording_ids, targets, training),
        genres=sum(row.count > 0 and not row.subgenre for row in rows),
        subgenres=sum(row.count > 0 and row.subgenre for row in rows),
        system=system,
        baselines=_baselines(true, labels, columns, training, seed=seed),
        uncalibrated=calibrated(reliability_of(ranked, scores.raw if scores else None)),
        calibrated=calibrated(trusted),
        consistency=consistency(scores),
        abstention=abstention(predictions, true, given),
        labels=tuple(rows),
        confused=tuple(most_confused(true, given, labels)),
        curves=tuple(_curve(row, ranked, scores) for row in largest) if scores else (),
        histograms=tuple(_histogram(row, ranked, scores) for row in largest) if scores else (),
        notes=tuple(_notes(predictions, truth, rows, system)),
    )


def _digest(*compared: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(compared).encode()).hexdigest()[:16]


def _matrix(label_sets: Sequence[LabelSet], labels: Sequence[str]) -> sparse.csr_array:
    """Convert label sets to a boolean CSR matrix (recordings, labels)."""
    column = {label: i for i, label in enumerate(labels)}
    indices = [column[label] for label_set in label_sets for label in sorted(set(label_set))]
    ends = np.cumsum([0, *(len(set(label_set)) for label_set in label_sets)])
    ones = np.ones(len(indices), dtype=bool)
    return sparse.csr_array((ones, indices, ends), shape=(len(label_sets), len(labels)))


def _columns(chosen: Sequence[str], labels: Sequence[str]) -> NDArray[np.intp]:
    column = {label: i for i, label in enumerate(labels)}
    return np.array([column[label] for label in chosen], dtype=np.intp)


def _rankings(true: sparse.csr_array, scores: NDArray[np.floating]) -> Rankings:
    return roc_auc(true, scores), average_precision(true, scores)


def _answer(
    true: sparse.csr_array, given: sparse.csr_array, labels: Sequence[str], rankings: Rankings | None
) -> Answer:
    means = [Means(ranking.macro, ranking.micro) for ranking in rankings] if rankings else [None, None]
    return Answer(
        official=official_scores(true, given, labels),
        official_with_parents=official_scores(true, add_parents(given, labels), labels),
        roc_auc=means[0],
        average_precision=means[1],
    )


def _baselines(
    true: sparse.csr_array,
    labels: Sequence[str],
    columns: NDArray[np.intp],
    training: Sequence[LabelSet],
    *,
    seed: int,
) -> dict[str, Answer]:
    """Evaluate the baselines on the same recordings; ranking metrics are over `columns` (ranked labels,).

    The scores of popularity are the frequencies of labels in training. Those of the others are 1 for predicted labels
    and 0 for the rest.
    """
    recordings = true.shape[0]
    popular, branch = (_matrix(find(training, recordings), labels) for find in (popularity, majority_branch))
    drawn = _matrix(random_label_sets(training, recordings, seed=seed), labels)
    frequency = _matrix(training, labels).mean(axis=0)[columns]
    answers = {}
    for name, given, scores in (
        ("popularity", popular, np.broadcast_to(frequency, (recordings, len(columns)))),
        ("majority", branch, branch[:, columns].toarray().astype(np.float32)),
        ("random", drawn, drawn[:, columns].toarray().astype(np.float32)),
    ):
        rankings = _rankings(true[:, columns], scores) if len(columns) else None
        answers[name] = _answer(true, given, labels, rankings)
    return answers


def _label_results(
    true: sparse.csr_array,
    given: sparse.csr_array,
    labels: Sequence[str],
    scores: AllScores | None,
    rankings: Rankings | None,
    trusted: Reliability | None,
) -> list[LabelResult]:
    """The results of all labels that are true, predicted or scored, the most frequent first."""
    column = {label: i for i, label in enumerate(scores.labels)} if scores else {}

    def ranking(measure: int, label: str) -> float | None:
        return defined(rankings[measure].per_label[column[label]]) if rankings and label in column else None

    def threshold(label: str) -> float | None:
        value = scores.policy.thresholds[column[label]] if scores and label in column else NO_THRESHOLD
        return float(value) if value < NO_THRESHOLD else None

    found = label_scores(true, given, labels)
    rows = [
        LabelResult(
            label=label,
            subgenre=is_subgenre(label),
            count=int(found.truth_count[i]),
            predicted=int(found.predicted_count[i]),
            precision=defined(found.precision[i]),
            recall=defined(found.recall[i]),
            f_score=defined(found.f_score[i]),
            roc_auc=ranking(0, label),
            average_precision=ranking(1, label),
            threshold=threshold(label),
            calibration_error=defined(trusted.per_label[column[label]]) if trusted and label in column else None,
        )
        for i, label in enumerate(labels)
        if found.truth_count[i] or found.predicted_count[i] or label in column
    ]
    return sorted(rows, key=lambda row: (-row.count, row.label))


def _curve(row: LabelResult, ranked: sparse.csr_array, scores: AllScores) -> Curve:
    """A label's precision-recall curve, reduced to `CURVE_POINTS` points; `ranked` has the axes of the scores."""
    column = scores.labels.index(row.label)
    curve = precision_recall_curve(ranked[:, [column]].toarray()[:, 0], scores.values[:, column])
    points = len(curve.recall)
    kept = np.unique(np.linspace(0, points - 1, min(points, CURVE_POINTS)).round().astype(int))[::-1]
    return Curve(
        label=row.label,
        average_precision=row.average_precision,
        recall=tuple(curve.recall[kept].tolist()),
        precision=tuple(curve.precision[kept].tolist()),
        decided_recall=row.recall or 0.0,
        decided_precision=row.precision if row.predicted else None,
    )


def _histogram(row: LabelResult, ranked: sparse.csr_array, scores: AllScores) -> Histogram:
    """A label's scores in `BINS` bins of equal width; `ranked` has the axes of the scores."""
    column = scores.labels.index(row.label)
    positive, values = ranked[:, [column]].toarray()[:, 0], scores.values[:, column].astype(np.float64)
    edges = np.histogram_bin_edges(values, BINS)
    return Histogram(
        label=row.label,
        edges=tuple(edges.tolist()),
        positives=tuple(np.histogram(values[positive], edges)[0].tolist()),
        negatives=tuple(np.histogram(values[~positive], edges)[0].tolist()),
        threshold=row.threshold,
    )


def _notes(predictions: Predictions, truth: Truth, rows: Sequence[LabelResult], system: Answer) -> list[str]:
    notes = []
    recordings = len(predictions.recording_ids)
    if recordings < FEW_RECORDINGS:
        sd = system.official.recording_all.f_score.sd
        margin = "" if sd is None else f" (standard error of the mean F per recording: {sd / recordings**0.5:.3f})"
        notes.append(
            f"Only {_count(recordings, 'recording')} evaluated: small differences between systems can be due to "
            f"chance{margin}, and the scores of single labels are based on very few recordings."
        )
    missing = len(truth.recording_ids) - recordings
    if missing:
        notes.append(
            f"{_count(missing, 'recording')} of the truth without a prediction: left out, not counted as errors."
        )
    if truth.training is None:
        notes.append(
            "The truth has no training part. The baselines are fitted to the truth itself, which favours them."
        )
    if predictions.averaged:
        averaged = _count(predictions.averaged, "recording")
        notes.append(f"{averaged} with several submissions. Their scores are averaged before labels are predicted.")
    if predictions.scores is None:
        notes.append("ROC AUC and average precision are not available, because not all scores are stored.")
    else:
        notes += _label_notes(predictions.scores.labels, rows)
    return notes


def _label_notes(known: Sequence[str], rows: Sequence[LabelResult]) -> list[str]:
    """Notes on the labels that the ranking metrics leave out."""
    notes = []
    outside = sorted({row.label for row in rows if row.count} - set(known))
    if outside:
        named = ", ".join(outside[:5]) + (", …" if len(outside) > 5 else "")
        notes.append(
            f"{_count(len(outside), 'label')} of the truth unknown to the model ({named}). The official scores count "
            "them as never predicted; ROC AUC and average precision leave them out."
        )
    undefined = len(known) - sum(row.roc_auc is not None for row in rows)
    if undefined:
        notes.append(
            f"{_count(undefined, 'label')} of the model that all or none of the recordings have. The macro means of "
            "ROC AUC and average precision leave them out."
        )
    return notes


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
