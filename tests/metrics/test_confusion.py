"""Guards the most confused pairs: counted per recording, without pairs on one branch of the taxonomy."""

from collections import Counter

import numpy as np
import pytest
from scipy import sparse

from genre_ray.metrics.confusion import Confusion, most_confused

LABELS = ["rock", "rock---indie", "rock---metal", "jazz", "rock---indie---noise", "rockabilly"]


def matrix(*label_sets: set[str]) -> np.ndarray:
    return np.array([[label in labels for label in LABELS] for labels in label_sets])


def test_pairs_are_counted_and_shares_are_of_the_true_label() -> None:
    truth = matrix({"rock---indie"}, {"rock---indie"}, {"rock---indie"}, {"jazz"})
    predicted = matrix({"rock---metal"}, {"rock---metal", "jazz"}, {"rock---indie", "jazz"}, {"jazz"})
    assert most_confused(truth, predicted, LABELS) == [
        Confusion("rock---indie", "rock---metal", 2, pytest.approx(2 / 3)),
        Confusion("rock---indie", "jazz", 1, pytest.approx(1 / 3)),
    ]


@pytest.mark.parametrize(
    ("true", "given", "pairs"),
    [
        ("rock", "rock---indie", 0),
        ("rock---indie", "rock", 0),
        ("rock", "rock---indie---noise", 0),
        ("rock---indie", "rock---metal", 1),
        ("rock", "rockabilly", 1),
    ],
)
def test_pairs_on_one_branch_are_not_confusions(true: str, given: str, pairs: int) -> None:
    assert len(most_confused(matrix({true}), matrix({given}), LABELS)) == pairs


def test_agrees_with_counting_recording_by_recording() -> None:
    rng = np.random.default_rng(2)
    labels = [f"l{i:02}" for i in rng.permutation(30)]
    truth, predicted = rng.random((2, 200, 30)) < 0.1
    counts: Counter[tuple[str, str]] = Counter()
    for true, given in zip(truth, predicted, strict=True):
        missed, false = np.flatnonzero(true & ~given), np.flatnonzero(given & ~true)
        counts.update((labels[i], labels[j]) for i in missed for j in false)
    expected = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:50]
    for form in (np.asarray, sparse.csr_array):
        found = most_confused(form(truth), form(predicted), labels, top=50)
        assert [((pair.truth, pair.predicted), pair.count) for pair in found] == expected


def test_perfect_predictions_confuse_nothing() -> None:
    truth = matrix({"jazz"}, {"rock", "rock---indie"})
    assert most_confused(truth, truth, LABELS) == []
