"""Abstention: the curve is what counting gives, and a stricter target never answers more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.decisions.abstention import coverage_risk, expected_f, least_confidence

CASES = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.25, 0.5, 0.9]), st.floats(0, 1)), min_size=1, max_size=30)


@given(CASES)
def test_each_point_counts_the_recordings_of_at_least_that_confidence(cases):
    confidence, f_scores = np.array(cases).T
    curve = coverage_risk(confidence, f_scores)
    assert curve.confidence.tolist() == sorted(set(confidence), reverse=True)
    for coverage, risk, least in zip(curve.coverage, curve.risk, curve.confidence, strict=True):
        answered = confidence >= least
        assert coverage == pytest.approx(answered.mean())
        assert risk == pytest.approx(1 - f_scores[answered].mean())
    assert curve.coverage[-1] == 1


@given(CASES, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_looser_target_answers_no_fewer(cases, one, other):
    confidence, f_scores = np.array(cases).T
    curve = coverage_risk(confidence, f_scores)
    for target in ("risk", "coverage"):
        strict, loose = (least_confidence(curve, **{target: value}) for value in sorted((one, other)))
        answered = [len(cases) if least is None else (confidence >= least).sum() for least in (strict, loose)]
        assert answered[0] <= answered[1]


@given(CASES, st.floats(0.01, 0.99))
def test_targets_are_met_on_validation(cases, target):
    confidence, f_scores = np.array(cases).T
    curve = coverage_risk(confidence, f_scores)
    least = least_confidence(curve, coverage=target)
    assert (confidence >= (-1 if least is None else least)).mean() >= target - 1e-9
    least = least_confidence(curve, risk=target)
    risk = 1 - f_scores[confidence >= (-1 if least is None else least)].mean()
    assert risk <= max(target, curve.risk.min()) + 1e-9


def test_without_a_target_or_recordings_every_recording_is_answered():
    assert least_confidence(coverage_risk(np.array([0.5, 0.1]), np.array([1.0, 0.0]))) is None
    assert least_confidence(coverage_risk(np.zeros(0), np.zeros(0)), risk=0.1) is None


def test_the_area_is_the_mean_risk_over_coverages():
    curve = coverage_risk(np.array([0.9, 0.5, 0.1]), np.array([1.0, 0.5, 0.0]))
    assert curve.area == pytest.approx((0 + 0.25 + 0.5) / 3)


def test_expected_f_is_the_f_of_certain_answers():
    truth = np.array([[1, 0, 1], [0, 1, 0], [0, 0, 0]], dtype=np.float32)
    answer = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    np.testing.assert_allclose(expected_f(truth, answer), [0.5, 1, 0])


def test_expected_f_comes_close_to_the_mean_over_draws():
    generator = np.random.default_rng(4)
    probabilities = generator.random((3, 30), dtype=np.float32)
    answer = probabilities > 0.4
    draws = generator.random((20_000, 3, 30)) < probabilities
    f_scores = 2 * (draws & answer).sum(axis=2) / (draws.sum(axis=2) + answer.sum(axis=1))
    np.testing.assert_allclose(expected_f(probabilities, answer), f_scores.mean(axis=0), atol=0.01)
