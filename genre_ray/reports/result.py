"""The results of one evaluation, as plain values. Both report.json and report.html are made from them."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genre_ray.metrics.confusion import Confusion
from genre_ray.metrics.official import OfficialScores


@dataclass(frozen=True)
class Coverage:
    """How many recordings were evaluated.

    Attributes:
        truth: number of recordings in the truth.
        evaluated: number of them with a prediction; all scores are over these.
        missing: number of them without a prediction.
        unknown: number of predicted recordings that are not in the truth.
    """

    truth: int
    evaluated: int
    missing: int
    unknown: int


@dataclass(frozen=True)
class Means:
    """A ranking metric: its mean over labels (macro), and its value over all (recording, label) pairs (micro)."""

    macro: float | None
    micro: float | None


@dataclass(frozen=True)
class Answer:
    """The scores of a system or of a baseline. The ranking metrics are None if not all scores are stored."""

    official: OfficialScores
    official_with_parents: OfficialScores
    roc_auc: Means | None
    average_precision: Means | None


@dataclass(frozen=True)
class LabelResult:
    """The scores of one label.

    Attributes:
        label: its name.
        subgenre: whether it is a subgenre.
        count: number of recordings with it in the truth.
        predicted: number of recordings with it in the predictions.
        precision, recall, f_score: None if no evaluated recording truly has the label.
        roc_auc, average_precision: None if its scores are not stored, or if all or none of the recordings have it.
        threshold: the threshold of its probability; None if it has none.
        calibration_error: expected calibration error of its probability; None if its scores are not stored.
    """

    label: str
    subgenre: bool
    count: int
    predicted: int
    precision: float | None
    recall: float | None
    f_score: float | None
    roc_auc: float | None
    average_precision: float | None
    threshold: float | None
    calibration_error: float | None = None


@dataclass(frozen=True)
class Curve:
    """A label's precision-recall curve, with its precision and recall as predicted.

    Attributes:
        label: its name.
        average_precision: the area under the curve.
        recall, precision: (points,), by increasing recall.
        decided_recall, decided_precision: recall and precision of the predicted labels; the precision is None if the
            label was never predicted.
    """

    label: str
    average_precision: float | None
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    decided_recall: float
    decided_precision: float | None


@dataclass(frozen=True)
class Histogram:
    """Histogram of a label's scores: counts between consecutive `edges`, for recordings with and without the label."""

    label: str
    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    threshold: float | None


@dataclass(frozen=True)
class Calibrated:
    """How well scores are calibrated, see `genre_ray.metrics.reliability`.

    Attributes:
        macro: mean over labels of the expected calibration error.
        unbiased: root of the mean over labels of the unbiased squared calibration error.
        pooled: expected calibration error of all (recording, label) pairs together.
        brier: Brier score, the mean squared difference between score and truth.
        probability, share: mean score and share of true pairs per bin, (bins,). Each bin expects equally many true
            pairs.
    """

    macro: float | None
    unbiased: float | None
    pooled: float | None
    brier: float | None
    probability: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class Consistency:
    """How often a label has a higher score than its parent.

    Attributes:
        pairs: number of pairs of a recording and a (child, parent) pair of labels.
        before: number of violations in the model's scores; None if these are not known.
        after: number of violations in the calibrated and consistent probabilities.
    """

    pairs: int
    before: int | None
    after: int


@dataclass(frozen=True)
class Abstention:
    """Abstention and the risk-coverage curve, see `genre_ray.decisions.abstention`.

    Attributes:
        abstained: number of recordings that the policy abstained from.
        answered_f: mean F of the other recordings; None if there are none.
        coverage, risk: points of the risk-coverage curve, (points,); empty if not all scores are stored.
        area: mean risk over all coverages; None if not all scores are stored.
    """

    abstained: int
    answered_f: float | None
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float | None


@dataclass(frozen=True)
class EvaluationResult:
    """The results of one evaluation.

    Attributes:
        name: name of the evaluation in the report.
        taxonomy: taxonomy of the predictions; None if they do not state it.
        model_ids: sorted ids of the bundles that predicted; empty for a run file.
        predictions: URI of the predictions.
        truth: URI of the truth.
        part: part of the bundle's examples; None for a ground truth file.
        level: unit of the evaluation: `recording`, `release_group` or `artist`.
        calibration: calibration method of the predictions; None if they do not state it.
        coverage: how many recordings were evaluated.
        comparable: hash of the evaluated recordings, their true labels and the training part of the baselines. The
            numbers of two evaluations can be compared if this hash is the same.
        genres, subgenres: number of genres and subgenres in the evaluated truth.
        system: scores of the predictions.
        baselines: scores of the `popularity`, `majority` and `random` baselines on the same recordings.
        uncalibrated, calibrated: calibration of the model's scores and of the probabilities. None if not all scores are
            stored, or if a score is outside [0, 1].
        consistency: None if not all scores are stored, or if no label has a parent.
        abstention: None if the predictions do not state it.
        labels: results of all labels, the most frequent first.
        confused: the most confused pairs of labels.
        curves, histograms: of the most frequent labels; empty if not all scores are stored.
        notes: warnings about these numbers, in words.
    """

    name: str
    taxonomy: str | None
    model_ids: tuple[str, ...]
    predictions: str
    truth: str
    part: str | None
    level: str
    calibration: str | None
    coverage: Coverage
    comparable: str
    genres: int
    subgenres: int
    system: Answer
    baselines: Mapping[str, Answer]
    uncalibrated: Calibrated | None
    calibrated: Calibrated | None
    consistency: Consistency | None
    abstention: Abstention | None
    labels: tuple[LabelResult, ...]
    confused: tuple[Confusion, ...]
    curves: tuple[Curve, ...]
    histograms: tuple[Histogram, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The results as JSON values. Metrics that need scores that are not stored are "not available"."""
        plain = asdict(self)
        for answer in (plain["system"], *plain["baselines"].values()):
            for measure in ("roc_auc", "average_precision"):
                answer[measure] = answer[measure] or "not available"
        return plain


def defined(value: float | None) -> float | None:
    """Return `value`, or None for NaN, which JSON cannot represent.

    >>> defined(float("nan")), defined(0.5)
    (None, 0.5)
    """
    return None if value is None or math.isnan(value) else float(value)
