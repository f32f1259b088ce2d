"""Consistency over any hierarchy without circles: no violation is left, doing it twice changes nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_ray.decisions.consistency import Hierarchy
from genre_ray.errors import InputError


@st.composite
def hierarchies(draw, most=9):
    """Pairs (child, parent) of columns, several parents allowed, whose parents come first in some hidden order."""
    labels = draw(st.integers(1, most))
    order = draw(st.permutations(range(labels)))
    possible = [(order[child], order[above]) for child in range(labels) for above in range(child)]
    pairs = draw(st.lists(st.sampled_from(possible), unique=True)) if possible else []
    return Hierarchy(pairs, labels)


def ancestors(hierarchy, label):
    found = {above for child, above in hierarchy.pairs if child == label}
    return found.union(*(ancestors(hierarchy, above) for above in found))


@settings(deadline=None)
@given(hierarchies(), st.integers(0, 2**32 - 1))
def test_every_child_is_lowered_to_the_least_of_all_above_it(hierarchy, seed):
    scores = np.random.default_rng(seed).random((5, hierarchy.labels), dtype=np.float32)
    lowered = hierarchy.lower(scores.copy())
    for label in range(hierarchy.labels):
        above = [label, *ancestors(hierarchy, label)]
        np.testing.assert_array_equal(lowered[:, label], scores[:, above].min(axis=1))
    assert hierarchy.violations(lowered) == 0
    np.testing.assert_array_equal(hierarchy.lower(lowered.copy()), lowered)


@settings(deadline=None)
@given(hierarchies(), st.integers(0, 2**32 - 1))
def test_every_label_brings_all_above_it_and_no_other(hierarchy, seed):
    decided = np.random.default_rng(seed).random((5, hierarchy.labels)) < 0.3
    closed = hierarchy.close(decided.copy())
    for row, before in zip(closed, decided, strict=True):
        chosen = set(np.flatnonzero(before).tolist())
        assert set(np.flatnonzero(row)) == chosen.union(*(ancestors(hierarchy, label) for label in chosen))
    np.testing.assert_array_equal(hierarchy.close(closed.copy()), closed)


@settings(deadline=None)
@given(hierarchies())
def test_depth_is_the_longest_way_up(hierarchy):
    for child, above in hierarchy.pairs:
        assert hierarchy.depth[child] > hierarchy.depth[above]
    for label in range(hierarchy.labels):
        parents = [above for child, above in hierarchy.pairs if child == label]
        assert hierarchy.depth[label] == max((hierarchy.depth[above] + 1 for above in parents), default=0)


def test_violations_count_recordings_and_pairs():
    hierarchy = Hierarchy([(1, 0), (2, 0), (2, 1)], 3)
    assert hierarchy.violations(np.array([[0.5, 0.5, 0.6], [0.1, 0.2, 0.3]])) == 2 + 3


@pytest.mark.parametrize("pairs", [[(0, 0)], [(0, 1), (1, 0)], [(0, 1), (1, 2), (2, 0)]])
def test_circles_are_refused(pairs):
    with pytest.raises(InputError, match="contains a cycle"):
        Hierarchy(pairs, 3)


@pytest.mark.parametrize("pair", [(0, 3), (-1, 0)])
def test_columns_that_are_not_there_are_refused(pair):
    with pytest.raises(InputError, match="columns from 0 to 2"):
        Hierarchy([pair], 3)
