"""One evaluation: predictions against the truth, beside the baselines, with everything a report shows.

Every number comes from `genre_ray.metrics`; this module decides what is compared with what. Recordings of the
truth without a prediction, such as those of rejected documents, are left out and counted.
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
"""Below this many recordings a report warns of chance: the standard error of a mean F is about 0.01 there."""

LARGEST_LABELS = 6
CURVE_POINTS = 200
BINS = 20

Rankings = tuple[Ranking, Ranking]
"""ROC AUC and average precision."""


def evaluate(name: str, predictions: Predictions, truth: Truth, *, seed: int = 0) -> EvaluationResult:
    """Evaluate predictions on the recordings that the truth has.

    Args:
        name: what the report calls this evaluation.
        predictions: restricted to recordings of the truth.
        truth: the true labels.
        seed: of the random baseline.

    Raises:
        InputError: no recording of the truth has a prediction.
    """
    true_labels = dict(zip(truth.recording_ids, truth.labels, strict=True))
    recordings = len(predictions.recording_ids)
    if not recordings:
        raise InputError(
            f"{predictions.uri}: expected predictions of the {len(true_labels)} recordings of {truth.uri}, "
            f"found {predictions.unknown} recordings and none of these; check that both are of one catalog "
            "and name its recordings alike"
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
    """Which recording has which label: boolean (recordings, labels)."""
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
    """The baselines on the same recordings, ranked over the same label `columns`, (ranked labels,).

    As scores, popularity gives each label its frequency in training, the others their label sets.
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
    """The labels that are true, predicted or scored, the most frequent first."""
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
    """At most `CURVE_POINTS` points of the label's curve, with its ends; `ranked` as the scores' axes."""
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
    """The label's scores in `BINS` equal bins over their range; `ranked` as the scores' axes."""
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
            f"Only {_count(recordings, 'recording')}: small differences between systems can be "
            f"chance{margin}, and a label's own scores rest on very few recordings."
        )
    missing = len(truth.recording_ids) - recordings
    if missing:
        notes.append(
            f"{_count(missing, 'recording')} of the truth without a prediction: left out, not counted as wrong."
        )
    if truth.training is None:
        notes.append("No training part was given: the baselines learn from the truth itself, which favours them.")
    if predictions.averaged:
        averaged = _count(predictions.averaged, "recording")
        notes.append(f"{averaged} with several submissions: scores averaged, then decided.")
    if predictions.scores is None:
        notes.append("ROC AUC and average precision are not available: the scores of all labels are not stored.")
    else:
        notes += _label_notes(predictions.scores.labels, rows)
    return notes


def _label_notes(known: Sequence[str], rows: Sequence[LabelResult]) -> list[str]:
    """What the ranking measures leave out, given the labels that the model knows."""
    notes = []
    outside = sorted({row.label for row in rows if row.count} - set(known))
    if outside:
        named = ", ".join(outside[:5]) + (", …" if len(outside) > 5 else "")
        notes.append(
            f"{_count(len(outside), 'label')} of the truth outside the model's labels ({named}): never "
            "predicted in the official scores, left out of ROC AUC and average precision."
        )
    undefined = len(known) - sum(row.roc_auc is not None for row in rows)
    if undefined:
        notes.append(
            f"{_count(undefined, 'label')} of the model without recordings both with and without it: left "
            "out of the macro means of ROC AUC and average precision."
        )
    return notes


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
