"""Guards the 18 official scores: what is averaged over what, and what a zero denominator gives.

References: a case checked with the official tool, a restatement recording by recording in plain Python, and
scikit-learn.
"""

import json
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import sparse
from sklearn.metrics import precision_recall_fscore_support

from genre_ray.errors import InputError
from genre_ray.metrics.official import Cell, OfficialScores, add_parents, label_scores, official_scores

Booleans = NDArray[np.bool_]

CASE = {
    "a1": (["rock", "rock---indie"], ["rock", "rock---metal"]),
    "a2": (["jazz"], ["jazz", "jazz---bop"]),
    "a3": (["electronic", "electronic---ambient", "rock"], ["electronic", "rock", "pop"]),
    "a4": (["pop", "pop---ballad", "rock", "rock---indie"], ["pop---ballad", "rock---indie"]),
    "a5": (["folk"], ["blues"]),
}
LABELS = sorted({label for sides in CASE.values() for side in sides for label in side})

# Group → n, then mean and standard deviation of precision, recall and F, as the official tool prints them.
EXPECTED = {
    "recording_all": (5, 0.5333, 0.3613, 0.5333, 0.3613, 0.5, 0.2887),
    "recording_genres": (5, 0.5333, 0.5055, 0.6, 0.5477, 0.56, 0.5177),
    "recording_subgenres": (3, 0.3333, 0.5774, 0.3333, 0.5774, 0.3333, 0.5774),
    "label_all": (8, 0.625, 0.5175, 0.5208, 0.4666, 0.5583, 0.4767),
    "label_genres": (5, 0.6, 0.5477, 0.5333, 0.5055, 0.56, 0.5177),
    "label_subgenres": (3, 0.6667, 0.5774, 0.5, 0.5, 0.5556, 0.5092),
}

# A space with deep labels, a label whose parent is missing (`c---x`), and no order.
SPACE = ["b", "a---x---y", "a", "a---x", "c---x", "d"]

pairs = st.integers(0, 12).flatmap(
    lambda n: st.tuples(*[arrays(np.bool_, (n, len(SPACE)), elements=st.booleans())] * 2)
)


def matrix(label_sets: list[list[str]]) -> Booleans:
    return np.array([[label in labels for label in LABELS] for labels in label_sets])


def worked_case(**predicted: list[str]) -> OfficialScores:
    truth = matrix([true for true, _ in CASE.values()])
    return official_scores(truth, matrix([predicted.get(key, given) for key, (_, given) in CASE.items()]), LABELS)


def brute_force(truth: Booleans, predicted: Booleans, labels: list[str]) -> dict[str, Any]:
    """The definitions once more, with Python sets and loops."""

    def cell(values: list[float]) -> dict[str, Any]:
        return {
            "mean": statistics.fmean(values) if values else None,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "count": len(values),
        }

    def group(triples: list[tuple[float | None, float, float]]) -> dict[str, Any]:
        return {
            "precision": cell([p for p, _, _ in triples if p is not None]),
            "recall": cell([r for _, r, _ in triples]),
            "f_score": cell([f for _, _, f in triples]),
        }

    def triple(true: set[Any], given: set[Any], empty: float | None) -> tuple[float | None, float, float]:
        if not given:
            return empty, 0.0, 0.0
        p, r = len(true & given) / len(given), len(true & given) / len(true)
        return p, r, 2 * p * r / (p + r) if p + r else 0.0

    kinds = {
        "all": set(labels),
        "genres": {label for label in labels if "---" not in label},
        "subgenres": {label for label in labels if "---" in label},
    }
    rows = [
        tuple({label for label, on in zip(labels, side, strict=True) if on} for side in sides)
        for sides in zip(truth, predicted, strict=True)
    ]
    columns = {
        label: tuple({i for i, sides in enumerate(rows) if label in sides[side]} for side in (0, 1)) for label in labels
    }
    result = {}
    for kind, members in kinds.items():
        empty = None if kind == "all" else 0.0
        result[f"recording_{kind}"] = group(
            [triple(true & members, given & members, empty) for true, given in rows if true & members]
        )
        result[f"label_{kind}"] = group(
            [triple(*columns[label], 0.0) for label in labels if label in members and columns[label][0]]
        )
    return result


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, group in expected.items():
        for score, cell in group.items():
            assert found[name][score] == pytest.approx(cell, abs=1e-12), (name, score)


@pytest.mark.parametrize("name", EXPECTED)
def test_worked_case(name: str) -> None:
    count, *numbers = EXPECTED[name]
    group = getattr(worked_case(), name)
    cells = [group.precision, group.recall, group.f_score]
    assert [cell.count for cell in cells] == [count] * 3
    assert [round(value, 4) for cell in cells for value in (cell.mean, cell.sd)] == numbers


def test_worked_case_with_an_emptied_prediction() -> None:
    """An empty prediction leaves the mean of precision, and only that one."""
    group = worked_case(a1=[]).recording_all
    cells = [group.precision, group.recall, group.f_score]
    assert [cell.count for cell in cells] == [4, 5, 5]
    assert [round(cell.mean or 0, 4) for cell in cells] == [0.5417, 0.4333, 0.4]


def test_recording_groups_other_than_all_keep_an_empty_prediction_as_precision_0() -> None:
    group = worked_case(a1=[]).recording_genres
    assert group.precision.count == 5
    assert group.precision.mean == pytest.approx((0 + 1 + 2 / 3 + 0 + 0) / 5)


@settings(max_examples=200, deadline=None)
@given(pairs)
def test_agrees_with_the_restatement_in_plain_python(case: tuple[Booleans, Booleans]) -> None:
    assert_same(official_scores(*case, SPACE).as_dict(), brute_force(*case, SPACE))


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
def test_large_random_cases_dense_and_sparse(density: float) -> None:
    rng = np.random.default_rng(7)
    labels = [f"g{i % 9}" if i < 9 else f"g{i % 9}---s{i}" for i in range(60)]
    truth, predicted = rng.random((300, 60)) < 0.05, rng.random((300, 60)) < density
    expected = brute_force(truth, predicted, labels)
    assert_same(official_scores(truth, predicted, labels).as_dict(), expected)
    sparse_scores = official_scores(sparse.csr_array(truth), sparse.csr_matrix(predicted), labels)
    assert_same(sparse_scores.as_dict(), expected)


def test_agrees_with_scikit_learn_where_the_definitions_meet() -> None:
    """With a true label and a predicted one everywhere, no zero denominator separates the definitions."""
    rng = np.random.default_rng(3)
    truth, predicted = rng.random((2, 200, 12)) < 0.3
    truth[:, 0] = predicted[:, 0] = True
    labels = [f"l{i}" for i in range(12)]
    scores = official_scores(truth, predicted, labels)
    for group, average in ((scores.recording_all, "samples"), (scores.label_all, "macro")):
        expected = precision_recall_fscore_support(truth, predicted, average=average)[:3]
        assert [group.precision.mean, group.recall.mean, group.f_score.mean] == pytest.approx(expected)
    each = label_scores(truth, predicted, labels)
    expected = precision_recall_fscore_support(truth, predicted, average=None)
    for found, wanted in zip((each.precision, each.recall, each.f_score, each.truth_count), expected, strict=True):
        np.testing.assert_allclose(found, wanted)


def test_a_single_value_has_no_deviation_and_an_empty_group_no_mean() -> None:
    scores = official_scores(np.array([[True, False]]), np.array([[True, True]]), ["rock", "rock---indie"])
    assert scores.recording_all.precision == Cell(mean=0.5, sd=None, count=1)
    assert scores.recording_subgenres.precision == Cell(mean=None, sd=None, count=0)
    assert scores.label_subgenres.f_score == Cell(mean=None, sd=None, count=0)
    assert json.loads(json.dumps(scores.as_dict(), allow_nan=False))["label_subgenres"]["recall"] == {
        "mean": None,
        "sd": None,
        "count": 0,
    }


def test_no_recordings_at_all() -> None:
    none = np.zeros((0, 2), dtype=bool)
    assert all(
        cell == {"mean": None, "sd": None, "count": 0}
        for group in official_scores(none, none, ["a", "b"]).as_dict().values()
        for cell in group.values()
    )


@settings(deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_recordings_and_labels_does_not_matter(case: tuple[Booleans, Booleans], random: Any) -> None:
    truth, predicted = case
    rows, columns = list(range(len(truth))), list(range(len(SPACE)))
    random.shuffle(rows)
    random.shuffle(columns)
    shuffled = [side[np.ix_(rows, columns)] for side in case]
    assert_same(
        official_scores(shuffled[0], shuffled[1], [SPACE[i] for i in columns]).as_dict(),
        official_scores(truth, predicted, SPACE).as_dict(),
    )


def test_label_scores_rows() -> None:
    truth = np.array([[True, False, True], [True, False, False]])
    predicted = np.array([[True, True, False], [False, True, False]])
    rows = label_scores(truth, predicted, ["a", "only predicted", "never predicted"]).as_rows()
    assert rows == [
        {
            "label": "a",
            "truth_count": 2,
            "predicted_count": 1,
            "precision": 1.0,
            "recall": 0.5,
            "f_score": pytest.approx(2 / 3),
        },
        {
            "label": "only predicted",
            "truth_count": 0,
            "predicted_count": 2,
            "precision": None,
            "recall": None,
            "f_score": None,
        },
        {
            "label": "never predicted",
            "truth_count": 1,
            "predicted_count": 0,
            "precision": 0.0,
            "recall": 0.0,
            "f_score": 0.0,
        },
    ]


def test_add_parents_closes_over_all_levels_the_space_has() -> None:
    predicted = np.zeros((3, len(SPACE)), dtype=bool)
    predicted[0, SPACE.index("a---x---y")] = True
    predicted[1, SPACE.index("c---x")] = True
    closed = add_parents(predicted, SPACE)
    found = [{SPACE[i] for i in np.flatnonzero(row)} for row in closed]
    assert found == [{"a---x---y", "a---x", "a"}, {"c---x"}, set()]


def test_add_parents_skips_a_level_that_the_space_lacks() -> None:
    assert add_parents(np.array([[True, False]]), ["a---x---y", "a"]).tolist() == [[True, True]]


@settings(deadline=None)
@given(pairs)
def test_add_parents_only_adds_is_idempotent_and_keeps_the_form(case: tuple[Booleans, Booleans]) -> None:
    predicted = case[0]
    closed = add_parents(predicted, SPACE)
    assert isinstance(closed, np.ndarray)
    assert closed.dtype == bool
    assert (closed >= predicted).all()
    np.testing.assert_array_equal(add_parents(closed, SPACE), closed)
    in_csr = add_parents(sparse.csr_array(predicted), SPACE)
    assert sparse.issparse(in_csr)
    np.testing.assert_array_equal(in_csr.toarray(), closed)


def test_a_repeated_label_is_refused() -> None:
    one = np.array([[True, False]])
    with pytest.raises(InputError, match="distinct"):
        official_scores(one, one, ["a", "a"])
    with pytest.raises(InputError, match="distinct"):
        add_parents(one, ["a", "a"])
