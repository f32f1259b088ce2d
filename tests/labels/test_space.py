"""Label sets become the same boolean matrix as scikit-learn's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from genre_ray.labels.space import label_matrix

LABELS = ["jazz", "rock", "rock---indie", "soul"]


@given(st.lists(st.lists(st.sampled_from(LABELS), max_size=4), min_size=1, max_size=20))
def test_equals_sklearns_binarizer(label_sets):
    found = label_matrix(label_sets, LABELS)
    assert found.dtype == bool
    expected = MultiLabelBinarizer(classes=LABELS).fit_transform(label_sets).astype(bool)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert found.has_canonical_format


def test_labels_outside_the_space_and_empty_sets():
    found = label_matrix([["rock", "polka"], []], LABELS)
    np.testing.assert_array_equal(found.toarray(), [[False, True, False, False], [False] * 4])
    assert label_matrix([], LABELS).shape == (0, 4)
