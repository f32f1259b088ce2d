"""A policy fitted on validation: calibration first, then thresholds and abstention on what it gives.

All of it learns from the same recordings, so what it promises of them is a little better than what others will show.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from genre_ray.config import Description, Settings
from genre_ray.decisions.abstention import CoverageRisk, coverage_risk, expected_f, least_confidence
from genre_ray.decisions.calibration import Method, fit_calibration
from genre_ray.decisions.consistency import Pair
from genre_ray.decisions.policy import Policy
from genre_ray.decisions.softmax import fit_temperature
from genre_ray.decisions.thresholds import NO_THRESHOLD, borrowed_thresholds, recording_threshold
from genre_ray.metrics.matrices import LabelMatrix, as_csr
from genre_ray.metrics.ranking import average_precision, roc_auc
from genre_ray.metrics.reliability import reliability

_POINTS = 21


class DecisionSettings(Settings):
    """How scores become labels."""

    calibration: Method = Field("auto", description="auto, platt, isotonic, temperature or none")
    thresholds: Literal["label_f", "recording_f"] = Field(
        "label_f", description="what they make greatest: the mean F of labels, or of recordings"
    )
    least_positives: int = Field(
        10, ge=1, description="label_f: with fewer positives, a label borrows from its parent or the value for all"
    )
    consistent: bool = Field(True, description="no label above its parents, none answered without them")
    max_labels: int | None = Field(None, ge=1, description="the most labels that a recording gets")
    risk: float | None = Field(None, gt=0, lt=1, description="abstain so that the others' 1 − F stays within this")
    coverage: float | None = Field(None, gt=0, le=1, description="or abstain so that this share is answered")

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if self.risk is not None and self.coverage is not None:
            raise ValueError("abstention needs either risk or coverage, found both; give one of them")
        return self


class ValidationMetrics(Description):
    """How good the predictions of a policy are on the recordings that it was fitted on."""

    recordings: int = Field(ge=0, description="recordings that the policy was fitted on")
    roc_auc: float | None = Field(description="macro mean over labels")
    average_precision: float | None = Field(description="macro mean over labels")
    calibration_error: float | None = Field(description="of the probabilities; null where they are none")
    calibration_error_before: float | None = Field(description="of the network's scores; null where they are none")
    calibration_maps: dict[str, int] = Field(description="number of labels by their kind of calibration map")
    coverage_risk: tuple[tuple[float, float], ...] = Field(
        description="shares of the most confident recordings, each with 1 − their mean F"
    )


@dataclass(frozen=True)
class Fit:
    """A policy and what validation shows of it: the confidence of its recordings against the F of their answers."""

    policy: Policy
    curve: CoverageRisk


def fit_policy(
    labels: Sequence[str],
    pairs: Sequence[Pair],
    truth: LabelMatrix,
    scores: NDArray[np.floating],
    settings: DecisionSettings,
    *,
    single_label: bool = False,
) -> Fit:
    """The policy for scores like these.

    Args:
        labels: the scores' columns, (labels,).
        pairs: (child, parent) columns of the taxonomy.
        truth: (recordings, labels), recordings that the model has not learnt from.
        scores: (recordings, labels) as the model gives them.
        settings: what is wanted.
        single_label: whether exactly one label of each recording is right, and the scores are its probabilities. The
            most probable label is decided then: no label has a threshold, and the taxonomy changes nothing.

    Raises:
        InputError: the shapes differ, or scores cannot be calibrated.
        ConfigurationError: the calibration is not one for single labels.
    """
    values = np.asarray(scores, dtype=np.float32)
    fit_maps = fit_temperature if single_label else fit_calibration
    calibrated = Policy(
        labels=tuple(labels),
        thresholds=np.full(len(labels), NO_THRESHOLD, dtype=np.float32),
        calibration=fit_maps(truth, values, settings.calibration),
        pairs=tuple(pairs) if settings.consistent and not single_label else (),
        max_labels=settings.max_labels,
    )
    probabilities = calibrated.probabilities(values)
    if single_label:
        thresholds = calibrated.thresholds
    elif settings.thresholds == "recording_f":
        thresholds = np.full(len(labels), recording_threshold(truth, probabilities))
    else:
        thresholds = borrowed_thresholds(truth, probabilities, calibrated.hierarchy, settings.least_positives)
    deciding = replace(calibrated, thresholds=thresholds)
    curve = answer_curve(deciding, truth, probabilities)
    least = least_confidence(curve, risk=settings.risk, coverage=settings.coverage)
    return Fit(replace(deciding, least_confidence=least), curve)


def validation_metrics(fit: Fit, truth: LabelMatrix, scores: NDArray[np.float32]) -> ValidationMetrics:
    """Measure a policy on the recordings that it was fitted on."""
    probabilities = fit.policy.probabilities(scores)
    return ValidationMetrics(
        recordings=len(scores),
        roc_auc=roc_auc(truth, probabilities).macro,
        average_precision=average_precision(truth, probabilities).macro,
        calibration_error=_calibration_error(truth, probabilities),
        calibration_error_before=_calibration_error(truth, scores),
        calibration_maps=dict(sorted(Counter(fit.policy.calibration.kinds).items())),
        coverage_risk=tuple(fit.curve.points(_POINTS)),
    )


def _calibration_error(truth: LabelMatrix, values: NDArray[np.float32]) -> float | None:
    unbounded = values.size and (values.min() < 0 or values.max() > 1)
    return None if unbounded else reliability(truth, values).macro


def answer_curve(policy: Policy, truth: LabelMatrix, probabilities: NDArray[np.float32]) -> CoverageRisk:
    """Coverage and risk of a policy's answers on recordings with a truth, both (recordings, labels)."""
    decided = policy.decide(probabilities).labels
    true = as_csr(truth, "truth")
    hits = np.asarray(true.multiply(decided).sum(axis=1)).ravel()
    total = np.asarray(true.sum(axis=1)).ravel() + decided.sum(axis=1)
    f_scores = np.divide(2 * hits, total, out=np.zeros(len(hits)), where=total > 0)
    return coverage_risk(expected_f(probabilities, decided), f_scores)
