"""The values of one evaluation: plain, complete, and what both the JSON and the HTML report are made from."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genre_ray.metrics.confusion import Confusion
from genre_ray.metrics.official import OfficialScores


@dataclass(frozen=True)
class Coverage:
    """Which recordings took part.

    Attributes:
        truth: recordings of the truth.
        evaluated: those of them that are in the predictions; every score is over these.
        missing: those of them that are not.
        unknown: recordings of the predictions that the truth does not have.
    """

    truth: int
    evaluated: int
    missing: int
    unknown: int


@dataclass(frozen=True)
class Means:
    """A ranking measure: its mean over labels with both classes, and over all (recording, label) cells."""

    macro: float | None
    micro: float | None


@dataclass(frozen=True)
class Answer:
    """What one way of answering is worth; the ranking measures are None where not all scores are stored."""

    official: OfficialScores
    official_with_parents: OfficialScores
    roc_auc: Means | None
    average_precision: Means | None


@dataclass(frozen=True)
class LabelResult:
    """One label of the truth or of the predictions; what is not defined for it is None.

    Attributes:
        label: its name.
        subgenre: whether it has a label above it.
        count: recordings of the truth that have it.
        predicted: recordings that were given it.
        precision, recall, f_score: None for a label that the evaluated truth does not have.
        roc_auc, average_precision: None without its scores, or without recordings of both kinds.
        threshold: the score from which it is given; None for a label that its own score never gives.
        calibration_error: expected calibration error of its score; None without its scores.
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
    """A label's precision over rising recall, both (points,), and where its decided labels stand.

    `decided_precision` is None for a label that was never decided.
    """

    label: str
    average_precision: float | None
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    decided_recall: float
    decided_precision: float | None


@dataclass(frozen=True)
class Histogram:
    """Counts of a label's scores between consecutive `edges`, for recordings with the label and without."""

    label: str
    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]
    threshold: float | None


@dataclass(frozen=True)
class Calibrated:
    """How far scores can be taken at their word; see `genre_ray.metrics.reliability`.

    Attributes:
        macro: mean expected calibration error of the labels.
        unbiased: the root of their mean squared error, less what sampling adds.
        pooled: expected calibration error of all pairs of recording and label.
        brier: mean squared distance between score and truth.
        probability, share: (bins,) mean score and true share of all pairs, in bins that expect equally many true ones.
    """

    macro: float | None
    unbiased: float | None
    pooled: float | None
    brier: float | None
    probability: tuple[float, ...]
    share: tuple[float, ...]


@dataclass(frozen=True)
class Consistency:
    """Pairs of a recording and of a label and its parent, and in how many the label has the higher score.

    Attributes:
        pairs: how many there are.
        before: violations among the model's scores; None where these are not comparable.
        after: among the answer's.
    """

    pairs: int
    before: int | None
    after: int


@dataclass(frozen=True)
class Abstention:
    """What answering only the surest recordings gives.

    Attributes:
        abstained: recordings that the predictions mark.
        answered_f: mean F of the others; None without any.
        coverage, risk: (points,) shares of the surest recordings and 1 − mean F of their answers; empty without scores.
        area: mean risk over all coverages.
    """

    abstained: int
    answered_f: float | None
    coverage: tuple[float, ...]
    risk: tuple[float, ...]
    area: float | None


@dataclass(frozen=True)
class EvaluationResult:
    """One evaluation.

    Attributes:
        name: as configured.
        taxonomy: of the predictions, None when they do not say.
        model_ids: the bundles that predicted, sorted; empty for a run file.
        predictions: URI of what was evaluated.
        truth: URI of the truth.
        level: what is evaluated: `recording`, `release_group` or `artist`.
        part: part of the examples that the truth is restricted to; None for a whole ground truth.
        calibration: how the scores are calibrated, None when the predictions do not say.
        coverage: which recordings took part.
        comparable: hash of the evaluated recordings, their true labels and what the baselines learnt from. Numbers of
            evaluations that agree in it can be compared, and their baselines are the same.
        genres, subgenres: number of labels of each kind in the evaluated truth.
        system: what the predictions are worth.
        baselines: the same for the `popularity`, `majority` and `random` baselines on the same recordings.
        uncalibrated, calibrated: the model's scores and the answer's; None where not all scores are stored, or where
            they are outside [0, 1].
        consistency: None without stored scores, or a taxonomy of one level.
        abstention: None where predictions say nothing of it.
        labels: every label, the most frequent first.
        confused: the most confused pairs first.
        curves, histograms: of the largest labels; empty where not all scores are stored.
        notes: what a reader must know about these numbers.
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
        """The evaluation as JSON values; measures that need all scores are "not available" without them."""
        plain = asdict(self)
        for answer in (plain["system"], *plain["baselines"].values()):
            for measure in ("roc_auc", "average_precision"):
                answer[measure] = answer[measure] or "not available"
        return plain


def defined(value: float | None) -> float | None:
    """`value`, or None for NaN: JSON has no other way to say that a number is not defined.

    >>> defined(float("nan")), defined(0.5)
    (None, 0.5)
    """
    return None if value is None or math.isnan(value) else float(value)
