"""What one method's scores of one taxonomy are worth, all of it by the library's own decisions and metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.consistency import Hierarchy
from genre_ray.decisions.fitting import DecisionSettings, fit_policy
from genre_ray.metrics.official import official_scores
from genre_ray.metrics.ranking import average_precision, roc_auc
from genre_ray.metrics.reliability import reliability

Matrix = np.ndarray[Any, Any]

HALF = 0.5


@dataclass(frozen=True)
class Scored:
    """A method's raw scores of the recordings of two parts, with their truth; all matrices (recordings, labels)."""

    labels: Sequence[str]
    pairs: Sequence[tuple[int, int]]
    validation_truth: Any
    validation_scores: Matrix
    truth: Any
    scores: Matrix


def measure(scored: Scored, settings: DecisionSettings | None = None) -> dict[str, float]:
    """The columns of the table; the policy learns from validation, everything is measured on the other part."""
    policy = fit_policy(
        scored.labels,
        scored.pairs,
        scored.validation_truth,
        scored.validation_scores,
        settings or DecisionSettings(),
    ).policy
    scores = scored.scores.astype(np.float32)
    probabilities = policy.probabilities(scores)
    untuned = replace(
        policy,
        calibration=Calibration.none(len(scored.labels)),
        thresholds=np.full(len(scored.labels), HALF, dtype=np.float32),
    )
    hierarchy = Hierarchy(scored.pairs, len(scored.labels))
    tuned = official_scores(scored.truth, policy.decide(probabilities).labels, scored.labels)
    at_half = official_scores(scored.truth, untuned.decide(scores).labels, scored.labels)
    return {
        "roc_auc": roc_auc(scored.truth, scores).macro,
        "average_precision": average_precision(scored.truth, scores).macro,
        "recording_f": tuned.recording_all.f_score.mean,
        "recording_f_half": at_half.recording_all.f_score.mean,
        "recording_genres_f": tuned.recording_genres.f_score.mean,
        "recording_subgenres_f": tuned.recording_subgenres.f_score.mean,
        "label_f": tuned.label_all.f_score.mean,
        "label_f_half": at_half.label_all.f_score.mean,
        "calibration_error": reliability(scored.truth, scores).macro,
        "calibration_error_after": reliability(scored.truth, probabilities).macro,
        "violations": float(hierarchy.violations(scores)),
        "violations_after": float(hierarchy.violations(probabilities)),
    }
