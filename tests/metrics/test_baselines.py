"""Guards the organisers' baselines: one genre for all, and whole label sets with their training frequency."""

from collections import Counter

import pytest

from genre_ray.errors import InputError
from genre_ray.metrics.baselines import majority_branch, popularity, random_label_sets

TRAINING = [
    ("jazz", "jazz---bop"),
    ("rock", "rock---indie"),
    ("rock", "rock---indie"),
    ("pop", "rock---indie"),
]


def test_popularity_predicts_a_genre_even_where_a_subgenre_is_more_frequent() -> None:
    assert popularity(TRAINING, 3) == [("rock",)] * 3


def test_popularity_breaks_ties_by_name_whatever_the_order() -> None:
    assert popularity([("rock",), ("jazz",)], 1) == popularity([("jazz",), ("rock",)], 1) == [("jazz",)]


def test_random_draws_whole_sets_with_their_frequency() -> None:
    drawn = Counter(random_label_sets(TRAINING, 40_000, seed=1))
    frequency = Counter(TRAINING)
    assert drawn.keys() == frequency.keys()
    for labels, count in frequency.items():
        # The standard deviation of these shares is at most 0.0025.
        assert drawn[labels] / 40_000 == pytest.approx(count / 4, abs=0.0125)


def test_random_is_repeatable_by_its_seed() -> None:
    assert random_label_sets(TRAINING, 50, seed=5) == random_label_sets(TRAINING, 50, seed=5)
    assert random_label_sets(TRAINING, 50, seed=5) != random_label_sets(TRAINING, 50, seed=6)


def test_nothing_to_learn_from_is_refused() -> None:
    with pytest.raises(InputError, match="genre"):
        popularity([("rock---indie",)], 1)
    with pytest.raises(InputError, match="training recording"):
        random_label_sets([], 1, seed=0)


def test_majority_goes_down_the_most_frequent_branch():
    training = [
        ("rock", "rock---indie"),
        ("rock", "rock---metal", "rock---metal---doom"),
        ("rock", "rock---metal"),
        ("jazz", "jazz---bop"),
        ("jazz", "jazz---bop"),
        ("jazz", "jazz---bop", "rock"),
    ]
    assert majority_branch(training, 2) == [("rock", "rock---metal", "rock---metal---doom")] * 2
    assert majority_branch([("jazz",), ("blues",)], 1) == [("blues",)]
    assert majority_branch([("a", "a---y"), ("a", "a---x")], 1) == [("a", "a---x")]
    with pytest.raises(InputError):
        majority_branch([], 1)
