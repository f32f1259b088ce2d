"""Guards scores in another taxonomy: the best witness's share, as a loop has it, within [0, 1]."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from genre_ray.errors import InputError
from genre_ray.labels import translation
from genre_ray.labels.translation import Translation
from genre_ray.truth.mapping_table import MappingTable

TABLE = MappingTable(
    "mapping.tsv",
    "",
    {
        ("a", "t"): {("rock", "Rock"): 0.9, ("rock", "Pop"): 0.1, ("metal", "Rock"): 1.0, ("gone", "Rock"): 1.0},
        ("b", "t"): {("pop", "Pop"): 0.5},
        ("a", "b"): {("rock", "pop"): 1.0},
    },
)


def test_the_best_witness_counts():
    found = Translation.of(TABLE, "t", {"a": ["metal", "rock"], "b": ["pop", "odd"]})
    assert found.labels == ("Pop", "Rock")
    assert found.unknown == ("gone",)
    scores = np.array([[0.2, 0.5, 0.0, 1.0], [0.5, 0.5, 0.8, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(found(scores), [[0.05, 0.45], [0.4, 0.5]])
    assert found(scores).dtype == np.float32
    assert found(scores[:0]).shape == (0, 2)


weights = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("xyz")), st.floats(0.125, 1, width=32), min_size=1
)


@given(weights, arrays(np.float32, (5, 4), elements=st.floats(0, 1, width=32)), st.integers(1, 40))
def test_scores_are_those_of_a_loop_in_whatever_blocks(drawn, scores, products):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translation, "_PRODUCTS", products)
        found = Translation.of(MappingTable("", "", {("s", "t"): drawn}), "t", {"s": "abcd"})
        given_ = found(scores)
    for row in range(len(scores)):
        for j, label in enumerate(found.labels):
            vouched = [scores[row, "abcd".index(a)] * np.float32(w) for (a, b), w in drawn.items() if b == label]
            assert given_[row, j] == max(vouched)
    assert ((given_ >= 0) & (given_ <= 1)).all()


def test_a_table_of_other_taxonomies_is_refused():
    with pytest.raises(InputError, match="map labels of a to c, found a → b, a → t, b → t"):
        Translation.of(TABLE, "c", {"a": ["rock"]})
    with pytest.raises(InputError, match="map labels of b to t"):
        Translation.of(TABLE, "t", {"b": ["odd"]})
