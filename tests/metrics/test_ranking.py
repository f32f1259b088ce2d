"""Guards ROC AUC, average precision and the curve against scikit-learn, with ties and labels of one class."""

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse

from genre_ray.errors import InputError
from genre_ray.metrics.ranking import average_precision, precision_recall_curve, ranked_labels, roc_auc

MEASURES = [
    (roc_auc, sklearn.metrics.roc_auc_score),
    (average_precision, sklearn.metrics.average_precision_score),
]


def random_case(
    *, recordings: int = 150, labels: int = 40, levels: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Truth and scores that know a little of it; with `levels`, scores take so many values and tie often."""
    rng = np.random.default_rng(11)
    truth = rng.random((recordings, labels)) < np.linspace(0.0, 0.6, labels)
    truth[:, -1] = True
    scores = rng.random(truth.shape) + 0.3 * truth
    if levels:
        scores = np.floor(scores * levels) / levels
    return truth, scores.astype(np.float32)


@pytest.mark.parametrize(("measure", "reference"), MEASURES)
@pytest.mark.parametrize("levels", [0, 2, 5])
def test_agrees_with_scikit_learn(measure, reference, levels: int) -> None:
    truth, scores = random_case(levels=levels)
    found = measure(truth, scores)
    both = [j for j in range(truth.shape[1]) if 0 < truth[:, j].sum() < len(truth)]
    assert 0 < len(both) < truth.shape[1]
    expected = np.full(truth.shape[1], np.nan)
    expected[both] = [reference(truth[:, j], scores[:, j]) for j in both]
    np.testing.assert_allclose(found.per_label, expected, rtol=1e-12)
    assert found.count == len(both)
    assert found.macro == pytest.approx(reference(truth[:, both], scores[:, both], average="macro"))
    assert found.micro == pytest.approx(reference(truth, scores, average="micro"))


@pytest.mark.parametrize(("measure", "reference"), MEASURES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_the_scores_are_left_as_they_are(measure, reference, order: str) -> None:
    """Sorting a transposed view in place would sort the caller's Fortran-ordered scores."""
    truth, scores = random_case()
    given_scores = np.array(scores, order=order)
    measure(truth, given_scores)
    np.testing.assert_array_equal(given_scores, scores)


@pytest.mark.parametrize(("measure", "reference"), MEASURES)
def test_sparse_truth_integer_and_half_scores(measure, reference) -> None:
    truth, scores = random_case(levels=5)
    expected = measure(truth, scores)
    for matrix, values in (
        (sparse.csr_array(truth), scores),
        (truth, (scores * 5).astype(int)),
        (truth, (scores * 5).astype(np.float16)),
    ):
        np.testing.assert_allclose(measure(matrix, values).per_label, expected.per_label)
        assert measure(matrix, values).micro == pytest.approx(expected.micro)


def test_constant_scores_know_nothing() -> None:
    truth = np.array([[True], [False], [False], [False]])
    constant = np.zeros((4, 1))
    assert roc_auc(truth, constant).macro == 0.5
    assert average_precision(truth, constant).macro == 0.25


@pytest.mark.parametrize(("measure", "reference"), MEASURES)
@pytest.mark.parametrize("recordings", [0, 1, 3])
def test_without_both_classes_nothing_is_defined(measure, reference, recordings: int) -> None:
    found = measure(np.zeros((recordings, 2), bool), np.ones((recordings, 2)))
    assert (found.macro, found.micro, found.count) == (None, None, 0)
    assert np.isnan(found.per_label).all()
    assert found.per_label.shape == (2,)


@pytest.mark.parametrize(("measure", "reference"), MEASURES)
def test_nan_and_wrong_shapes_are_refused(measure, reference) -> None:
    truth, scores = random_case()
    with pytest.raises(InputError, match="shape"):
        measure(truth, scores[:, 1:])
    with pytest.raises(InputError, match="shape"):
        measure(truth[:, 0], scores[:, 0])
    scores[3, 2] = np.nan
    with pytest.raises(InputError, match="NaN"):
        measure(truth, scores)


@settings(deadline=None)
@given(
    arrays(np.bool_, (9, 3), elements=st.booleans()),
    arrays(np.int8, (9, 3), elements=st.integers(-4, 4)),
    st.permutations(range(9)),
)
def test_order_of_recordings_and_monotone_maps_change_nothing(truth, scores, rows) -> None:
    for measure, _ in MEASURES:
        expected = measure(truth, scores)
        for other in (measure(truth[rows], scores[rows]), measure(truth, np.exp(scores / 3))):
            np.testing.assert_allclose(other.per_label, expected.per_label)
            assert other.micro == pytest.approx(expected.micro)


@settings(deadline=None)
@given(arrays(np.bool_, (9, 3), elements=st.booleans()), arrays(np.int8, (9, 3)))
def test_reversed_scores_give_the_complement_of_roc_auc(truth, scores) -> None:
    values = scores.astype(np.float32)
    np.testing.assert_allclose(roc_auc(truth, values).per_label, 1 - roc_auc(truth, -values).per_label)


def test_ranked_labels_are_sorted_columns_over_several_blocks() -> None:
    truth, scores = random_case(labels=70)
    ranked = list(ranked_labels(truth, scores))
    assert len(ranked) == 70
    for j, (rising, positives) in enumerate(ranked):
        np.testing.assert_array_equal(rising, np.sort(scores[:, j]))
        np.testing.assert_array_equal(positives, np.sort(scores[truth[:, j], j]))


def test_the_area_of_the_curve_steps_is_the_average_precision() -> None:
    truth, scores = random_case(levels=5)
    curve = precision_recall_curve(truth[:, 20], scores[:, 20])
    assert curve.precision.shape == curve.recall.shape == (len(curve.thresholds) + 1,)
    area = -(np.diff(curve.recall) * curve.precision[:-1]).sum()
    assert area == pytest.approx(average_precision(truth, scores).per_label[20])


@pytest.mark.parametrize(
    ("truth", "scores", "message"),
    [
        ([True, False], [0.1, np.nan], "finite"),
        ([True, False], [0.1], "shape"),
        ([False, False], [0.1, 0.2], "no recording has the label"),
    ],
)
def test_a_curve_that_cannot_be_drawn_is_refused(truth, scores, message: str) -> None:
    with pytest.raises(InputError, match=message):
        precision_recall_curve(truth, scores)
