"""A group is whole in one part, the parts have their shares, and a label needs enough recordings in each."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.labels.space import label_matrix
from genre_ray.labels.splits import PARTS, group_of, hash_position, labels_with_enough, parts_at


def part_of(group, seed, fractions):
    return PARTS[parts_at(np.array([hash_position(group, seed)], dtype=np.uint64), fractions)[0]]


def enough_of(examples, least_train, least_other):
    """The labels of those of `examples`, (part, labels), that have enough."""
    names = sorted({label for _, labels in examples for label in labels})
    parts = np.array([PARTS.index(part) for part, _ in examples], dtype=np.int8)
    matrix = label_matrix([labels for _, labels in examples], names)
    enough = labels_with_enough(matrix, parts, least_train, least_other)
    return tuple(name for name, kept in zip(names, enough, strict=True) if kept)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("fractions", [(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.9, 0.1, 0.0)])
def test_parts_have_their_shares_of_ten_thousand_groups(seed, fractions):
    counts = Counter(part_of(f"group {n}", seed, fractions) for n in range(10_000))
    for part, share in zip(PARTS, fractions, strict=True):
        # Five standard deviations of a binomial count.
        assert abs(counts[part] - 10_000 * share) <= 5 * (10_000 * share * (1 - share)) ** 0.5


def test_parts_are_what_they_were_in_every_version():
    found = [part_of(f"group {n}", 0, (0.5, 0.25, 0.25)) for n in range(8)]
    positions = [int(hashlib.sha256(f"0:group {n}".encode()).hexdigest()[:16], 16) / 2**64 for n in range(8)]
    assert found == ["train" if p < 0.5 else "validation" if p < 0.75 else "test" for p in positions]


def test_another_seed_gives_an_independent_split():
    groups = [f"group {n}" for n in range(10_000)]
    both = sum(part_of(g, 0, (0.5, 0.5, 0)) == part_of(g, 1, (0.5, 0.5, 0)) for g in groups)
    assert abs(both - 5_000) < 250


def test_shares_that_do_not_quite_sum_to_one_still_give_a_part():
    assert {part_of(f"group {n}", 0, (0.0, 0.0, 0.0)) for n in range(10)} == {"test"}


def test_group_is_the_release_group_then_the_artist_then_the_recording():
    assert group_of("r", "rg", ["a", "b"]) == "rg"
    assert group_of("r", "rg", ["a", "b"], "artist") == "a"
    assert group_of("r", "", ["a"]) == group_of("r", None, ["a"]) == "a"
    assert group_of("r", "rg", [], "artist") == "rg"
    assert group_of("r", None, []) == group_of("r", "", [], "artist") == "r"


@given(
    examples=st.lists(st.tuples(st.sampled_from(PARTS), st.sets(st.sampled_from("abcd"), min_size=1)), max_size=40),
    least_train=st.integers(1, 4),
    least_other=st.integers(1, 3),
)
def test_labels_with_enough_equals_counting_each(examples, least_train, least_other):
    expected = []
    for label in "abcd":
        enough = True
        for part in {part for part, _ in examples}:
            count = sum(label in labels for other, labels in examples if other == part)
            enough = enough and count >= (least_train if part == "train" else least_other)
        if enough and any(label in labels for _, labels in examples):
            expected.append(label)
    found = enough_of([(part, sorted(labels)) for part, labels in examples], least_train, least_other)
    assert found == tuple(expected)


def test_official_minimum_is_met_exactly():
    train = [("train", ["twenty", "nineteen"])] * 19 + [("train", ["twenty"])]
    validation = [("validation", ["twenty", "nineteen"])] * 10
    assert enough_of(train + validation, 20, 10) == ("twenty",)
    assert enough_of(train + validation[1:], 20, 10) == ()
