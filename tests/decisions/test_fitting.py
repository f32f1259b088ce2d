"""Fitting: thresholds on calibrated scores, and the targets of abstention met on validation."""

import numpy as np
import pytest
from scipy.special import expit

from genre_ray.decisions.fitting import DecisionSettings, answer_curve, fit_policy, validation_metrics
from genre_ray.decisions.thresholds import plug_in_thresholds, recording_threshold
from genre_ray.errors import ConfigurationError
from genre_ray.metrics.reliability import reliability

LABELS = ("jazz", "rock", "rock---indie", "rock---metal")
PAIRS = ((2, 1), (3, 1))


def case(recordings=2000, seed=0):
    """Scores of log-odds twice as large as they should be, parents true wherever a child is."""
    generator = np.random.default_rng(seed)
    odds = generator.normal(size=(recordings, 4)) * 1.5 - np.array([1, 0.5, 2, 3])
    truth = generator.random(odds.shape) < expit(odds)
    truth[:, 1] |= truth[:, 2] | truth[:, 3]
    truth[:, 0] |= ~truth.any(axis=1)
    return truth, expit(2 * odds).astype(np.float32)


def mean_f(policy, truth, scores):
    given = policy.decide(policy.probabilities(scores)).labels
    return (2 * (given & truth).sum(axis=1) / (given.sum(axis=1) + truth.sum(axis=1))).mean()


def fit(truth, scores, **given):
    return fit_policy(LABELS, PAIRS, truth, scores, DecisionSettings.from_mapping(given))


def test_thresholds_belong_to_the_calibrated_and_consistent_scores():
    truth, scores = case()
    policy = fit(truth, scores).policy
    probabilities = policy.probabilities(scores)
    np.testing.assert_array_equal(policy.thresholds, plug_in_thresholds(truth, probabilities))
    assert policy.hierarchy.violations(probabilities) == 0 < policy.hierarchy.violations(scores)
    assert set(policy.calibration.kinds) <= {"isotonic", "platt", "pooled"}


def test_recording_f_is_one_threshold_for_all_labels():
    truth, scores = case()
    policy = fit(truth, scores, thresholds="recording_f").policy
    assert set(policy.thresholds) == {recording_threshold(truth, policy.probabilities(scores))}


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.95])
def test_coverage_is_met_on_validation_and_nearly_on_others(coverage):
    truth, scores = case()
    policy = fit(truth, scores, coverage=coverage).policy
    abstained = policy.decide(policy.probabilities(scores)).abstained
    assert coverage <= 1 - abstained.mean() < coverage + 0.05
    _, unseen = case(seed=1)
    others = policy.decide(policy.probabilities(unseen)).abstained
    assert 1 - others.mean() == pytest.approx(coverage, abs=0.05)


def test_risk_is_met_on_validation_and_nearly_on_others():
    truth, scores = case()
    everything = fit(truth, scores).policy
    target = 0.8 * (1 - mean_f(everything, truth, scores))
    policy = fit(truth, scores, risk=target).policy
    for recordings, unseen, slack in ((truth, scores, 1e-6), (*case(seed=1), 0.02)):
        sure = ~policy.decide(policy.probabilities(unseen)).abstained
        assert 0.1 < sure.mean() < 1
        assert 1 - mean_f(policy, recordings[sure], unseen[sure]) <= target + slack


def test_labels_may_be_left_independent():
    truth, scores = case()
    policy = fit(truth, scores, consistent=False, calibration="none").policy
    assert policy.pairs == ()
    assert policy.probabilities(scores) is scores


def test_metrics_tell_the_calibration_error_before_and_after():
    truth, scores = case()
    found = fit(truth, scores)
    metrics = validation_metrics(found, truth, scores)
    assert metrics.recordings == len(truth)
    assert metrics.calibration_error_before == pytest.approx(reliability(truth, scores).macro)
    assert metrics.calibration_error < metrics.calibration_error_before / 2
    assert sum(metrics.calibration_maps.values()) == 4
    assert metrics.coverage_risk[-1] == (1.0, pytest.approx(1 - mean_f(found.policy, truth, scores)))
    assert len(metrics.coverage_risk) <= 21
    odd = validation_metrics(fit(truth, scores * 3, calibration="none"), truth, scores * 3)
    assert odd.calibration_error is odd.calibration_error_before is None


def test_the_curve_of_the_surest_recordings_is_below_that_of_all():
    truth, scores = case()
    policy = fit(truth, scores).policy
    curve = answer_curve(policy, truth, policy.probabilities(scores))
    assert curve.area < curve.risk[-1]


def test_validation_without_recordings_still_gives_a_policy():
    policy = fit(np.zeros((0, 4), bool), np.zeros((0, 4), np.float32), coverage=0.9).policy
    assert policy.decide(np.float32([[0.1, 0.9, 0.2, 0.3]])).labels.tolist() == [[False, True, False, False]]


@pytest.mark.parametrize(
    "given",
    [{"risk": 0.1, "coverage": 0.9}, {"risk": 0}, {"coverage": 1.1}, {"calibration": "beta"}, {"max_labels": 0}],
)
def test_settings_that_cannot_be_meant(given):
    with pytest.raises(ConfigurationError):
        DecisionSettings.from_mapping(given)
