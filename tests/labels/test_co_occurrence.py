"""Guards the counts of labels on shared recordings against brute force, scikit-learn's cosine and scipy's intervals."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse, stats
from sklearn.metrics.pairwise import cosine_similarity

from genre_ray.labels.co_occurrence import CoOccurrence, wilson


def count(ours, theirs, cuts=()):
    names = [f"a{i}" for i in range(ours.shape[1])], [f"b{i}" for i in range(theirs.shape[1])]
    edges = [0, *sorted(cuts), len(ours)]
    blocks = [
        (sparse.csr_array(ours[low:high]), sparse.csr_array(theirs[low:high]))
        for low, high in itertools.pairwise(edges)
    ]
    return CoOccurrence.count(*names, blocks)


@st.composite
def matrices(draw):
    recordings = draw(st.integers(0, 30))
    return tuple(draw(arrays(bool, (recordings, draw(st.integers(1, 5))))) for _ in range(2))


@given(matrices(), st.data())
def test_counts_are_those_of_a_loop_however_they_are_cut(drawn, data):
    ours, theirs = drawn
    found = count(ours, theirs, data.draw(st.lists(st.integers(0, len(ours)), max_size=3)))
    assert found.recordings == len(ours)
    for i in range(ours.shape[1]):
        assert found.count_from[i] == sum(ours[:, i])
        for j in range(theirs.shape[1]):
            together = sum(a and b for a, b in zip(ours[:, i], theirs[:, j], strict=True))
            assert found.together[i, j] == together
            assert found.share[i, j] == (together / sum(ours[:, i]) if any(ours[:, i]) else 0)


@given(matrices())
def test_similarity_is_the_cosine_of_the_columns(drawn):
    ours, theirs = drawn
    if len(ours):
        expected = cosine_similarity(ours.T.astype(float), theirs.T.astype(float))
        np.testing.assert_allclose(count(ours, theirs).cosine, expected, atol=1e-12)


def test_seen_from_the_other_side():
    rng = np.random.default_rng(1)
    ours, theirs = rng.random((40, 3)) < 0.4, rng.random((40, 4)) < 0.4
    back, expected = count(ours, theirs).swapped, count(theirs, ours)
    np.testing.assert_array_equal(back.together, expected.together)
    np.testing.assert_array_equal(back.count_from, expected.count_from)
    np.testing.assert_allclose(back.cosine, expected.cosine)
    assert (back.from_labels, back.to_labels) == (("b0", "b1", "b2", "b3"), ("a0", "a1", "a2"))


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.999])
def test_intervals_are_wilsons(confidence):
    for trials in (1, 2, 7, 100, 10_000):
        for hits in {0, 1, trials // 3, trials - 1, trials}:
            low, high = wilson(np.array(hits), np.array(trials), confidence)
            expected = stats.binomtest(hits, trials).proportion_ci(confidence, method="wilson")
            assert low == pytest.approx(expected.low, abs=1e-12)
            assert high == pytest.approx(expected.high, abs=1e-12)
    assert [float(bound) for bound in wilson(np.array(0), np.array(0), confidence)] == [0, 1]
