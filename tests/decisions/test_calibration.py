"""Calibration: the maps are scikit-learn's where that has them, never turn a ranking round, and survive JSON."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from genre_ray.decisions.calibration import (
    ISOTONIC_POSITIVES,
    OWN_POSITIVES,
    Calibration,
    CalibrationDescription,
    fit_calibration,
)
from genre_ray.errors import InputError
from genre_ray.metrics.ranking import average_precision, roc_auc
from genre_ray.metrics.reliability import reliability

METHODS = ["auto", "platt", "isotonic", "temperature"]


def over_confident(recordings, shares, seed=0, factor=2.0, shift=0.7):
    """Truths drawn from known probabilities, and scores whose log-odds are `factor` times theirs, plus `shift`."""
    generator = np.random.default_rng(seed)
    odds = logit(np.asarray(shares)) + 1.5 * generator.normal(size=(recordings, len(shares)))
    truth = generator.random(odds.shape) < expit(odds)
    return truth, expit(factor * odds + shift).astype(np.float32), expit(odds)


def reference(truth, scores, targets, *, intercept=True):
    """Targets as weighted cases of both classes, through an unpenalised logistic regression."""
    targets = np.asarray(targets, dtype=float).ravel()
    odds = logit(scores.astype(np.float64)).ravel()
    cases = np.concatenate([odds, odds])[:, None]
    classes = np.repeat([1, 0], len(odds))
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, tol=1e-10, max_iter=1000)
    model.fit(cases, classes, np.concatenate([targets, 1 - targets]))
    return model.coef_[0, 0], model.intercept_[0] if intercept else 0.0


def platt_targets(truth):
    positives, negatives = truth.sum(axis=0), (~truth).sum(axis=0)
    return np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))


def test_each_line_is_scikit_learns():
    truth, scores, _ = over_confident(4000, [0.02, 0.2, 0.6])
    found = fit_calibration(truth, scores, "platt")
    assert found.kinds == ("platt",) * 3
    for label in range(3):
        one = truth[:, [label]]
        slope, intercept = reference(one, scores[:, [label]], platt_targets(one))
        assert found.slopes[label] == pytest.approx(slope, rel=1e-3)
        assert found.intercepts[label] == pytest.approx(intercept, abs=1e-3)


def test_labels_with_few_positives_share_scikit_learns_line_through_all_cells():
    truth, scores, _ = over_confident(300, [0.01] * 20 + [0.4])
    truth[:, 0] = False
    assert truth[:, :20].sum(axis=0).max() < OWN_POSITIVES <= truth[:, 20].sum()
    found = fit_calibration(truth, scores, "platt")
    assert found.kinds == ("pooled",) * 20 + ("platt",)
    slope, intercept = reference(truth, scores, truth)
    found = fit_calibration(truth, scores)
    assert set(found.kinds[:20]) == {"pooled"}
    np.testing.assert_allclose(found.slopes[:20], slope, rtol=1e-3)
    np.testing.assert_allclose(found.intercepts[:20], intercept, atol=1e-3)


def test_one_temperature_is_scikit_learns_slope_without_intercept():
    truth, scores, _ = over_confident(500, [0.1, 0.5], shift=0.0)
    found = fit_calibration(truth, scores, "temperature")
    slope, _ = reference(truth, scores, truth, intercept=False)
    np.testing.assert_allclose(found.slopes, slope, rtol=1e-3)
    assert (found.intercepts == 0).all()


def test_knots_are_the_isotonic_regression_of_their_bins():
    truth, scores, _ = over_confident(8000, [0.3])
    found = fit_calibration(truth, scores)
    assert found.kinds == ("isotonic",)
    x, y = found.knots[0]
    odds = logit(scores[:, 0].astype(np.float64))
    edges = np.quantile(odds[truth[:, 0]], np.arange(1, 20) / 20)
    place = np.searchsorted(edges, odds, "right")
    count = np.bincount(place)
    rate = (np.bincount(place, truth[:, 0]) + 0.5) / (count + 1)
    mean = np.bincount(place, odds) / count
    expected = IsotonicRegression().fit(mean, rate, count).predict(mean)
    at_means = np.interp(mean, x, logit(expit(y.astype(np.float64))))
    alone = np.bincount(np.unique(expected, return_inverse=True)[1])[np.unique(expected, return_inverse=True)[1]] == 1
    assert alone.sum() > 10
    np.testing.assert_allclose(expit(at_means)[alone], expected[alone], rtol=1e-4)
    assert np.unique(expected).tolist() == pytest.approx(expit(y.astype(np.float64)).tolist(), rel=1e-4)


@pytest.mark.parametrize("method", ["auto", "platt", "isotonic"])
def test_calibrated_probabilities_come_close_to_the_true_ones(method):
    shares = [0.003, 0.004, 0.02, 0.3]
    truth, scores, _ = over_confident(6000, shares)
    found = fit_calibration(truth, scores, method)
    if method == "auto":
        assert found.kinds[3] == "isotonic"
        assert truth[:, 3].sum() >= ISOTONIC_POSITIVES
    fresh, unseen, probabilities = over_confident(6000, shares, seed=1)
    before, after = reliability(fresh, unseen), reliability(fresh, found.apply(unseen))
    best = reliability(fresh, probabilities.astype(np.float32))
    assert after.unbiased < before.unbiased / 4
    assert after.brier < best.brier * 1.02 < before.brier


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_ranking_changes(method, seed):
    truth, scores, _ = over_confident(2500, [0.005, 0.03, 0.45, 0.55], seed=seed)
    calibrated = fit_calibration(truth, scores, method).apply(scores)
    for measure in (roc_auc, average_precision):
        before, after = measure(truth, scores).per_label, measure(truth, calibrated).per_label
        np.testing.assert_allclose(after, before, atol=2e-6)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=4, max_size=40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(METHODS),
)
def test_whatever_validation_holds_maps_rise_and_stay_probabilities(scores, seed, method):
    """Also against a truth that has nothing to do with the scores, or contradicts them."""
    values = np.repeat(np.array(scores, dtype=np.float32), 20)[:, None]
    generator = np.random.default_rng(seed)
    truth = generator.random(values.shape) < generator.choice([0.0, 0.1, 1.0, 1 - values.mean()])
    found = fit_calibration(truth, values, method)
    grid = np.linspace(0, 1, 200, dtype=np.float32)[:, None]
    probabilities = found.apply(grid)
    assert np.isfinite(probabilities).all()
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert (np.diff(probabilities[:, 0]) >= 0).all()
    inner = probabilities[(probabilities > 1e-30) & (probabilities < 1 - 1e-5)]
    assert (np.diff(inner) > 0).all()


def test_scores_that_are_right_stay_as_they_are():
    """Validation of some dozens of recordings once made good probabilities worse."""
    for seed in range(20):
        truth, scores, _ = over_confident(60, [0.2, 0.3, 0.5, 0.1], seed=seed, factor=1.0, shift=0.0)
        assert set(fit_calibration(truth, scores).kinds) == {"none"}


def test_a_line_that_falls_gives_way_to_the_pooled_one():
    truth, scores, _ = over_confident(500, [0.5, 0.1, 0.1, 0.1, 0.1])
    scores[:, 0] = 1 - scores[:, 0]
    found = fit_calibration(truth, scores, "platt")
    assert found.kinds[0] == "pooled"
    assert (found.slopes > 0).all()


def test_without_enough_positives_scores_stay():
    truth, scores = np.zeros((5, 2), bool), np.full((5, 2), 0.25, np.float32)
    found = fit_calibration(truth, scores)
    assert found.kinds == ("none", "none")
    np.testing.assert_allclose(found.apply(scores), scores, rtol=1e-6)
    assert fit_calibration(np.zeros((0, 2), bool), np.zeros((0, 2))).kinds == ("none", "none")


def test_none_gives_the_very_scores():
    scores = np.array([[2.5, -1.0]], np.float32)
    assert fit_calibration(np.array([[True, False]]), scores, "none").apply(scores) is scores


@pytest.mark.parametrize("method", ["none", *METHODS])
def test_a_description_survives_json_exactly(method):
    truth, scores, _ = over_confident(3000, [0.002, 0.02, 0.45])
    found = fit_calibration(truth, scores, method)
    stated = found.describe()
    if stated is not None:
        stated = CalibrationDescription.model_validate_json(stated.model_dump_json(), strict=True)
    again = Calibration.of(stated, 3)
    assert (again.method, again.kinds) == (found.method, found.kinds)
    np.testing.assert_array_equal(again.apply(scores), found.apply(scores))


PLATT = {"method": "platt", "kinds": ["platt"] * 2, "slopes": [1.0] * 2, "intercepts": [0.0] * 2, "knots": {}}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "beta"},
        {"slopes": [1.0]},
        {"slopes": [1.0, float("inf")]},
        {"knots": {"2": [[0.0], [0.0]]}},
        {"knots": {"-1": [[0.0], [0.0]]}},
        {"knots": {"0": [[0.0], []]}},
        {"knots": {"0": [[], []]}},
        {"knots": {"x": [[0.0], [0.0]]}},
        {"unknown": 1},
    ],
)
def test_what_is_no_calibration_is_refused(changes):
    assert Calibration.of(CalibrationDescription.model_validate(PLATT), 2).kinds == ("platt", "platt")
    with pytest.raises(ValueError, match=r"expected|validation error"):
        Calibration.of(CalibrationDescription.model_validate({**PLATT, **changes}), 2)


def test_a_calibration_of_other_labels_is_refused():
    truth, scores, _ = over_confident(100, [0.5, 0.5])
    with pytest.raises(ValueError, match="of 3 labels, found one of 2"):
        Calibration.of(fit_calibration(truth, scores).describe(), 3)


@pytest.mark.parametrize("score", [-0.1, 1.1, np.nan])
def test_scores_that_are_no_probabilities_are_refused(score):
    with pytest.raises(InputError, match=r"in \[0, 1\]"):
        fit_calibration(np.array([[True], [False]]), np.array([[score], [0.5]]))


def test_shapes_must_agree():
    with pytest.raises(InputError, match="shape"):
        fit_calibration(np.zeros((2, 2), bool), np.zeros((2, 3)))
