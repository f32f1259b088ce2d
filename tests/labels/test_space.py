"""Label sets become the same boolean matrix as scikit-learn's, and joined taxonomies share the columns they should."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.preprocessing import MultiLabelBinarizer

from genre_ray.errors import InputError
from genre_ray.labels.names import normalise
from genre_ray.labels.space import LabelSpace, label_matrix

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


# Every trap of the four real sources: punctuation, digits, accents, squashed names, two labels that only the exception
# keeps apart.
VOCABULARIES = {
    "allmusic": [
        "electronic",
        "electronic---house",
        "pop/rock",
        "pop/rock---euro-pop",
        "pop/rock---europop",
        "pop/rock---nü metal",
    ],
    "discogs": [
        "electronic",
        "electronic---2-step",
        "electronic---house",
        "electronic---musique concrète",
        "funk / soul",
    ],
    "lastfm": ["electronic", "electronic---step", "funksoul", "poprock---europop"],
    "tagtraum": ["anime", "electronic"],
}


def test_taxonomies_share_a_column_where_their_names_are_the_same():
    space = LabelSpace.join(VOCABULARIES)
    assert space.labels == (
        "anime",
        "electronic",
        "electronic---house",
        "electronic---musiqueconcrète",
        "electronic---step",
        "funksoul",
        "poprock",
        "poprock---euro-pop",
        "poprock---europop",
        "poprock---nümetal",
    )
    assert {taxonomy: columns.tolist() for taxonomy, columns in space.columns.items()} == {
        "allmusic": [1, 2, 6, 7, 8, 9],
        "discogs": [1, 4, 2, 3, 5],
        "lastfm": [1, 4, 5, 8],
        "tagtraum": [0, 1],
    }


def test_one_taxonomy_keeps_its_names():
    labels = ["2-step", "Step", "step"]
    space = LabelSpace.join({"one": labels})
    assert (space.labels, space.columns["one"].tolist()) == (tuple(labels), [0, 1, 2])


def test_two_labels_of_a_taxonomy_that_become_one_are_refused_with_both():
    taxonomies = {"a": ["2-step", "rock", "step"], "b": ["rock"]}
    with pytest.raises(
        InputError, match=r"a: .*its labels '2-step' and 'step'.*both become 'step'.*rename one of them"
    ):
        LabelSpace.join(taxonomies)


@given(
    st.dictionaries(
        st.sampled_from("pqrs"),
        st.sets(st.text("aB2 é", min_size=1).filter(lambda t: any(map(str.isalpha, t))), min_size=1),
        min_size=2,
    )
)
def test_every_label_has_the_column_of_its_name_or_all_are_refused(vocabularies):
    vocabularies = {taxonomy: sorted(labels) for taxonomy, labels in vocabularies.items()}
    names = {taxonomy: [normalise(label) for label in labels] for taxonomy, labels in vocabularies.items()}
    if any(len(set(found)) < len(found) for found in names.values()):
        with pytest.raises(InputError, match="both become"):
            LabelSpace.join(vocabularies)
        return
    space = LabelSpace.join(vocabularies)
    assert list(space.labels) == sorted(set().union(*names.values()))
    for taxonomy, found in names.items():
        assert [space.labels[column] for column in space.columns[taxonomy]] == found
