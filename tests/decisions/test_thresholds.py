"""Guards the plug-in thresholds and the decisions: greatest F, the first of equals, never an empty answer.

References: F of every cut in exact fractions, and scikit-learn's precision-recall curve.
"""

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from sklearn.metrics import f1_score, precision_recall_curve

from genre_ray.decisions.consistency import Hierarchy
from genre_ray.decisions.thresholds import (
    NO_THRESHOLD,
    borrowed_thresholds,
    decide,
    plug_in_thresholds,
    recording_threshold,
)
from genre_ray.errors import InputError

TINY = np.finfo(np.float32).tiny


def exact_threshold(truth: NDArray[np.bool_], scores: NDArray[np.float32]) -> np.float32:
    """The lowest score of the greatest F, among all distinct scores, in exact arithmetic."""

    def f_score(threshold: np.float32) -> Fraction:
        hits = int((truth & (scores >= threshold)).sum())
        return Fraction(2 * hits, int((scores >= threshold).sum()) + int(truth.sum()))

    best: np.float32 = max(np.unique(scores), key=f_score)
    return best


def random_case(levels: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    rng = np.random.default_rng(levels)
    truth = rng.random((80, 50)) < np.linspace(0.02, 0.7, 50)
    truth[0] = True
    scores = 0.05 + rng.random(truth.shape) + 0.3 * truth
    return truth, (np.ceil(scores * levels) / levels).astype(np.float32)


@pytest.mark.parametrize("levels", [2, 6, 10_000])
def test_thresholds_are_the_first_maximum_of_f(levels: int) -> None:
    truth, scores = random_case(levels)
    expected = [exact_threshold(truth[:, j], scores[:, j]) for j in range(truth.shape[1])]
    np.testing.assert_array_equal(plug_in_thresholds(truth, scores), expected)


@pytest.mark.parametrize("levels", [2, 6, 10_000])
def test_f_at_the_threshold_is_the_best_of_scikit_learns_curve(levels: int) -> None:
    truth, scores = random_case(levels)
    for j, threshold in enumerate(plug_in_thresholds(truth, scores)):
        precision, recall, _ = precision_recall_curve(truth[:, j], scores[:, j])
        with np.errstate(invalid="ignore"):
            f_score = np.nan_to_num(2 * precision * recall / (precision + recall))
        assert f1_score(truth[:, j], scores[:, j] >= threshold) == pytest.approx(f_score.max())


def test_among_equal_fs_the_lowest_score_wins() -> None:
    """F is 2/3 at 0.9 (one hit of two, nothing false) and again at 0.2 (two hits, two false)."""
    truth = np.array([[True], [False], [False], [True]])
    scores = np.array([[0.9], [0.5], [0.4], [0.2]])
    assert plug_in_thresholds(truth, scores) == np.float32(0.2)


def test_a_label_without_positives_has_no_threshold_and_does_not_win() -> None:
    """Its lowest score would be the rule's answer, and the label would be predicted always."""
    truth = np.array([[True, False], [False, False]])
    scores = np.array([[0.8, 0.9], [0.1, 0.9]])
    thresholds = plug_in_thresholds(truth, scores)
    assert thresholds.tolist() == [pytest.approx(0.8), NO_THRESHOLD]
    assert decide(scores, thresholds).tolist() == [[True, False], [True, False]]


def test_without_recordings_no_label_has_a_threshold() -> None:
    thresholds = plug_in_thresholds(np.zeros((0, 3), bool), np.zeros((0, 3)))
    assert (thresholds == NO_THRESHOLD).all()
    assert thresholds.dtype == np.float32


@pytest.mark.parametrize("score", [0.0, -0.5])
def test_a_threshold_of_zero_or_less_is_floored(score: float) -> None:
    scores = np.full((2, 1), score)
    thresholds = plug_in_thresholds(np.array([[True], [False]]), scores)
    assert thresholds.tolist() == [TINY]
    assert decide(scores, thresholds).all()


def test_thresholds_survive_json_exactly() -> None:
    thresholds = plug_in_thresholds(np.array([[True, False], [True, False]]), np.array([[0.3, 0.1], [0.7, 0.2]]))
    stored = json.dumps(thresholds.tolist(), allow_nan=False)
    np.testing.assert_array_equal(np.array(json.loads(stored), dtype=np.float32), thresholds)


def test_scores_in_double_precision_still_reach_their_own_threshold() -> None:
    """0.7 as float32 lies below 0.7 as float64, 0.3 above: both sides are compared as float32."""
    truth, scores = np.array([[True, True], [False, False]]), np.array([[0.7, 0.3], [0.1, 0.1]])
    assert decide(scores, plug_in_thresholds(truth, scores))[0].all()


def test_a_recording_left_empty_gets_the_greatest_score_over_threshold() -> None:
    scores = np.array([[0.4, 0.09, 0.0], [0.5, 0.1, 0.0], [0.4, 0.08, 0.3]])
    decided = decide(scores, np.array([0.5, 0.1, NO_THRESHOLD]))
    assert decided.tolist() == [[False, True, False], [True, True, False], [True, False, False]]


def test_scores_of_zero_do_not_fall_back_to_a_label_without_threshold() -> None:
    assert decide(np.array([[0.9, 0.0]]), np.array([NO_THRESHOLD, 0.5])).tolist() == [[False, True]]


def test_if_no_label_has_a_threshold_the_greatest_score_wins() -> None:
    thresholds = np.full(3, NO_THRESHOLD)
    assert decide(np.array([[0.2, 0.4, 0.3]]), thresholds).tolist() == [[False, True, False]]


@settings(deadline=None)
@given(
    arrays(np.float32, st.tuples(st.integers(0, 8), st.just(4)), elements=st.floats(0, 1, width=32)),
    arrays(
        np.float32,
        4,
        elements=st.sampled_from([TINY, NO_THRESHOLD]) | st.floats(float(TINY), 1, width=32),
    ),
)
def test_every_recording_has_a_label_and_those_that_reach_the_threshold(scores, thresholds) -> None:
    decided = decide(scores, thresholds)
    assert decided.any(axis=1).all()
    reached = scores >= thresholds
    some = reached.any(axis=1)
    np.testing.assert_array_equal(decided[some], reached[some])
    assert (decided[~some].sum(axis=1) == 1).all()
    if (thresholds < NO_THRESHOLD).any():
        assert not decided[:, thresholds == NO_THRESHOLD].any()


@pytest.mark.parametrize("thresholds", [[0.5, np.nan], [0.5, np.inf], [0.5, 0.0], [0.5, -1.0], [0.5], [[0.5, 0.5]]])
def test_thresholds_that_cannot_be_used_are_refused(thresholds) -> None:
    with pytest.raises(InputError):
        decide(np.array([[0.1, 0.2]]), np.array(thresholds))


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_scores_that_are_not_finite_are_refused(score: float) -> None:
    scores = np.array([[0.1, score]])
    with pytest.raises(InputError, match="finite"):
        decide(scores, np.array([0.5, 0.5]))
    with pytest.raises(InputError, match="finite"):
        plug_in_thresholds(np.array([[True, False]]), scores)


def test_no_labels_are_refused() -> None:
    with pytest.raises(InputError, match="at least one label"):
        decide(np.zeros((2, 0)), np.zeros(0))


def mean_recording_f(truth: NDArray[np.bool_], scores: NDArray[np.float32], threshold: np.float32) -> Fraction:
    """Of exact fractions; a recording's best label is given whatever its score."""
    total = Fraction(0)
    for row, values in zip(truth, scores, strict=True):
        given = values >= threshold
        given[np.argmax(values)] |= not given.any()
        if row.any() or given.any():
            total += Fraction(2 * int((row & given).sum()), int(row.sum()) + int(given.sum()))
    return total / len(truth)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.sampled_from([3, 20, 10**6]))
def test_one_threshold_for_all_has_the_greatest_recording_f(seed, labels, levels) -> None:
    generator = np.random.default_rng(seed)
    truth = generator.random((12, labels)) < generator.uniform(0.1, 0.7)
    noise = generator.random(truth.shape) + 0.5 * truth
    # Whatever the levels, no two labels of a recording are equal, so that its best label is one.
    scores = (np.ceil(noise * levels) / levels + np.arange(labels) * 1e-4).astype(np.float32)
    found = recording_threshold(truth, scores)
    candidates = [*np.unique(scores), np.float32(10)]
    best = max(mean_recording_f(truth, scores, candidate) for candidate in candidates)
    assert mean_recording_f(truth, scores, found) == best


def test_one_threshold_looks_no_further_than_64_labels() -> None:
    generator = np.random.default_rng(0)
    truth = generator.random((50, 200)) < 0.05
    scores = (generator.random(truth.shape) + 0.8 * truth).astype(np.float32)
    found = recording_threshold(truth, scores)
    best = max(mean_recording_f(truth, scores, candidate) for candidate in np.unique(scores)[::7])
    assert mean_recording_f(truth, scores, found) >= best


def test_one_threshold_of_nothing() -> None:
    assert recording_threshold(np.zeros((0, 2), bool), np.zeros((0, 2))) == NO_THRESHOLD
    assert recording_threshold(np.ones((2, 1), bool), np.full((2, 1), 0.5)) <= np.float32(0.5)


def test_a_label_with_few_positives_borrows_from_the_nearest_above_or_from_all() -> None:
    """Columns: rock, its child indie (few), its grandchild lo-fi (few), metal of its own, jazz (few, no parent)."""
    generator = np.random.default_rng(3)
    truth = np.zeros((200, 5), dtype=bool)
    truth[:60, 0], truth[:3, 1], truth[:2, 2], truth[20:50, 3], truth[100:104, 4] = (True,) * 5
    scores = (generator.random(truth.shape) * 0.6 + 0.4 * truth).astype(np.float32)
    hierarchy = Hierarchy([(1, 0), (2, 1), (3, 0)], 5)
    own, found = plug_in_thresholds(truth, scores), borrowed_thresholds(truth, scores, hierarchy, 10)
    assert found[[0, 3]].tolist() == own[[0, 3]].tolist()
    assert found[1] == found[2] == own[0]
    assert found[4] == recording_threshold(truth, scores)
    # Of two parents the lower threshold counts.
    both = borrowed_thresholds(truth, scores, Hierarchy([(1, 0), (1, 3)], 5), 10)
    assert both[1] == min(own[0], own[3])
    np.testing.assert_array_equal(borrowed_thresholds(truth, scores, hierarchy, 1), own)
