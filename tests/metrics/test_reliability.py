"""Calibration error and Brier score against restatements over single cases, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from genre_ray.errors import InputError
from genre_ray.metrics.reliability import label_bins, reliability


def brute_force_error(truth, probabilities, bins):
    """Sort, fill bins with equally many, let equals follow the first of them; mean |confidence − accuracy|."""
    cases = sorted(zip(probabilities.tolist(), truth.tolist(), strict=True))
    starts = [number * len(cases) // bins for number in range(bins)]
    members = {}
    for place, (probability, _) in enumerate(cases):
        first = min(place_ for place_, (other, _) in enumerate(cases) if other == probability)
        # The bin of a case is that of the last start whose probability is not above its own.
        own = max(start for start in starts if cases[start][0] <= probability)
        own = min(other for other in starts if cases[other][0] == cases[own][0])
        assert first >= 0
        members.setdefault(own, []).append(place)
    total = 0.0
    for places in members.values():
        confidence = np.mean([cases[place][0] for place in places])
        accuracy = np.mean([cases[place][1] for place in places])
        total += len(places) * abs(confidence - accuracy)
    return total / len(cases)


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1, width=32), st.booleans()),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 8),
)
def test_a_labels_error_equals_brute_force(cases, bins):
    probabilities = np.array([case[0] for case in cases], dtype=np.float32)
    truth = np.array([case[1] for case in cases])
    found = label_bins(np.sort(probabilities), np.sort(probabilities[truth]), bins)
    assert found.error == pytest.approx(brute_force_error(truth, probabilities, bins), abs=1e-6)
    assert found.count.sum() == len(cases)


def test_bins_of_distinct_probabilities_are_scikit_learns_quantile_bins():
    generator = np.random.default_rng(0)
    probabilities = generator.permutation(np.linspace(0.001, 0.999, 1500)).astype(np.float32)
    truth = generator.random(1500) < probabilities**2
    found = label_bins(np.sort(probabilities), np.sort(probabilities[truth]), 10)
    share, mean = calibration_curve(truth, probabilities, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(found.probability, mean, atol=1e-3)
    np.testing.assert_allclose(found.share, share, atol=2e-2)


def random_case(recordings=3000, labels=4, seed=0, power=2.0):
    generator = np.random.default_rng(seed)
    probabilities = generator.random((recordings, labels), dtype=np.float32) ** np.float32(2)
    return generator.random(probabilities.shape) < probabilities**power, probabilities


def test_means_and_brier_score():
    truth, probabilities = random_case()
    truth[:, 3] = False
    found = reliability(truth, probabilities, bins=10)
    expected = [brute_force_error(truth[:200, j], probabilities[:200, j], 10) for j in range(4)]
    short = reliability(truth[:200], probabilities[:200], bins=10)
    np.testing.assert_allclose(short.per_label, expected, atol=1e-6)
    assert short.macro == pytest.approx(np.mean(expected))
    assert found.brier == pytest.approx(brier_score_loss(truth.ravel(), probabilities.ravel()), rel=1e-6)


def test_pooled_error_is_that_of_all_cells_as_one_label():
    """Cells count as equal when they differ by less than a thousandth, so bins may begin a few cells apart."""
    truth, probabilities = random_case()
    found = reliability(truth, probabilities, bins=10)
    cells = np.sort(probabilities.ravel())
    expected = label_bins(cells, np.sort(probabilities[truth]), 10).error
    assert found.pooled == pytest.approx(expected, abs=2e-3)


def test_the_diagram_expects_as_many_true_cells_in_each_bin():
    truth, probabilities = random_case(20_000, power=1.0)
    diagram = reliability(truth, probabilities, bins=10).diagram
    expected = diagram.probability * diagram.count
    np.testing.assert_allclose(expected, expected.mean(), rtol=0.05)
    assert diagram.count.sum() == probabilities.size
    np.testing.assert_allclose(diagram.share, diagram.probability, atol=0.02)


def test_the_unbiased_error_of_true_probabilities_is_about_zero_where_the_plain_one_is_not():
    truth, probabilities = random_case(300, 200, power=1.0)
    found = reliability(truth, probabilities)
    assert found.macro > 0.03
    assert found.unbiased < 0.01
    biased = reliability(*random_case(3000, 40))
    exact = np.sqrt(np.mean([(u**2 - u**4) ** 2 for u in np.linspace(0, 1, 10_001)]))
    assert biased.unbiased == pytest.approx(exact, rel=0.1)


def test_nothing_to_compare():
    found = reliability(np.zeros((0, 2), bool), np.zeros((0, 2)))
    assert (found.pooled, found.brier, found.macro, found.unbiased) == (None, None, None, None)
    assert np.isnan(found.per_label).all()


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_what_is_no_probability_is_refused(value):
    with pytest.raises(InputError, match="calibrate the scores first"):
        reliability(np.array([[True]]), np.array([[value]]))
