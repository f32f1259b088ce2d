"""One temperature makes the probabilities of single labels as sure as they are right, and keeps their order."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.sparse import csr_array
from scipy.special import softmax

from genre_ray.decisions.calibration import Calibration
from genre_ray.decisions.fitting import DecisionSettings, fit_policy
from genre_ray.decisions.softmax import fit_temperature
from genre_ray.errors import ConfigurationError, InputError


def overconfident(recordings=600, labels=4):
    """Labels drawn by probabilities, and scores of the doubled logits."""
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(recordings, labels))
    drawn = (softmax(logits, axis=1).cumsum(axis=1) < generator.random((recordings, 1))).sum(axis=1)
    truth = csr_array(np.eye(labels, dtype=bool)[drawn])
    return truth, softmax(2 * logits, axis=1).astype(np.float32), drawn


def test_the_temperature_is_that_of_a_general_optimiser():
    truth, scores, drawn = overconfident()
    calibration = fit_temperature(truth, scores)
    assert calibration.method == "softmax"

    def cross_entropy(slope):
        return -np.log(softmax(slope * np.log(scores.astype(np.float64)), axis=1)[np.arange(len(drawn)), drawn]).mean()

    expected = minimize(cross_entropy, [1.0]).x[0]
    assert calibration.slopes[0] == pytest.approx(expected, rel=1e-3)
    assert calibration.slopes[0] == pytest.approx(0.5, abs=0.06)
    probabilities = calibration.apply(scores)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(np.argsort(probabilities, axis=1), np.argsort(scores, axis=1))
    again = Calibration.of(calibration.describe(), 4)
    np.testing.assert_array_equal(again.apply(scores), probabilities)


def test_good_probabilities_stay():
    truth, scores, _ = overconfident()
    good = (scores**0.5 / (scores**0.5).sum(axis=1, keepdims=True)).astype(np.float32)
    assert fit_temperature(truth, good).method == "none"
    assert fit_temperature(truth, scores, "none").method == "none"
    assert fit_temperature(truth, good, "temperature").method == "softmax"


def test_what_is_for_independent_labels_is_refused():
    truth, scores, _ = overconfident()
    with pytest.raises(ConfigurationError, match=r"decisions\.calibration: platt maps each label's score alone"):
        fit_temperature(truth, scores, "platt")
    several = csr_array(np.ones((len(scores), 4), dtype=bool))
    with pytest.raises(InputError, match="one label for each recording"):
        fit_temperature(several, scores)


def test_the_policy_of_single_labels_gives_the_most_probable_one():
    truth, scores, _ = overconfident()
    settings = DecisionSettings()
    fitted = fit_policy(("a", "a---b", "c", "d"), [(1, 0)], truth, scores, settings, single_label=True)
    probabilities = fitted.policy.probabilities(scores)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    decided = fitted.policy.decide(probabilities).labels
    np.testing.assert_array_equal(decided, np.eye(4, dtype=bool)[scores.argmax(axis=1)])
