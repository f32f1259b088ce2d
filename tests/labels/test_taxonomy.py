"""Guards the taxonomy: sound whenever it exists, closed upwards over several parents, in an order that scores can use.

The references are restatements over plain dicts, and networks of parents drawn at random: with edges only from later to
earlier labels there is no cycle, and with a way back there always is one.
"""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.labels.taxonomy import SEPARATOR, Taxonomy, is_subgenre, parent

names = st.lists(st.sampled_from(["a", "b", "c-d", "pop/rock"]), min_size=1, max_size=4).map(SEPARATOR.join)

PUNK = Taxonomy(
    {"rock": (), "folk": (), "punk": ("rock",), "folk punk": ("punk", "folk"), "oi!": ("punk",)}, {"street punk": "oi!"}
)


@st.composite
def networks(draw):
    """Parents of up to 12 labels, each with any of the labels before it; names do not follow that order."""
    labels = draw(st.lists(st.text("abcdefgh", min_size=1, max_size=3), min_size=1, max_size=12, unique=True))
    return {
        label: tuple(draw(st.lists(st.sampled_from(labels[:place]), unique=True, max_size=3))) if place else ()
        for place, label in enumerate(labels)
    }


def above(network, label):
    """All labels above, by recursion."""
    found = set(network[label])
    for name in network[label]:
        found |= above(network, name)
    return found


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("rock", None),
        ("avant-garde", None),
        ("a---b", "a"),
        ("a---b---c", "a---b"),
        ("pop/rock---euro-pop", "pop/rock"),
    ],
)
def test_the_parent_in_a_name_is_one_level_up(label, expected):
    assert parent(label) == expected
    assert is_subgenre(label) == (expected is not None)


@given(st.lists(names))
def test_a_taxonomy_of_names_is_sorted_and_closed(labels):
    taxonomy = Taxonomy.of_names(labels)
    assert set(labels) <= set(taxonomy.labels)
    assert list(taxonomy.labels) == sorted(taxonomy.labels)
    for label in taxonomy.labels:
        assert taxonomy.parents(label) == (() if parent(label) is None else (parent(label),))


def test_labels_with_several_parents():
    assert PUNK.labels == ("folk", "rock", "punk", "folk punk", "oi!")
    assert PUNK.roots == ("folk", "rock")
    assert PUNK.parents("folk punk") == ("folk", "punk")
    assert PUNK.children("punk") == ("folk punk", "oi!")
    assert PUNK.ancestors("folk punk") == ("folk", "rock", "punk")
    assert PUNK.with_parents(["oi!", "folk"]) == ("folk", "rock", "punk", "oi!")
    assert PUNK.path("oi!") == ("oi!", "punk", "rock")
    assert PUNK.resolve("street punk") == PUNK.resolve("oi!") == "oi!"
    assert "rock" in PUNK
    assert "street punk" not in PUNK
    assert len(PUNK) == 5
    assert pickle.loads(pickle.dumps(PUNK)) == PUNK


def test_edges_pass_over_labels_without_a_column():
    assert PUNK.edges(["oi!", "folk punk", "rock", "folk"]) == [(1, 3), (1, 2), (0, 2)]
    assert Taxonomy.of_names(["a---b---c"]).edges(["a---b---c", "a"]) == [(0, 1)]
    assert PUNK.edges([]) == []


@given(networks(), st.data())
def test_the_order_and_the_closure_hold_for_every_network(network, data):
    taxonomy = Taxonomy(network)
    place = {label: i for i, label in enumerate(taxonomy.labels)}
    assert all(place[name] < place[label] for label, parents in network.items() for name in parents)
    chosen = data.draw(st.lists(st.sampled_from(taxonomy.labels), unique=True))
    closed = taxonomy.with_parents(chosen)
    assert set(closed) == set(chosen).union(*(above(network, label) for label in chosen))
    assert taxonomy.with_parents(closed) == closed
    for label in network:
        assert set(taxonomy.ancestors(label)) == above(network, label)
        assert all(label in taxonomy.parents(name) for name in taxonomy.children(label))


@given(networks(), st.data())
def test_edges_are_topological_and_carry_the_whole_closure(network, data):
    taxonomy = Taxonomy(network)
    columns = data.draw(st.permutations(data.draw(st.lists(st.sampled_from(taxonomy.labels), unique=True))))
    edges = taxonomy.edges(columns)
    # One pass over the edges in their order must bring to every column all that is above it.
    reached = {column: {column} for column in range(len(columns))}
    settled = set()
    for child, upper in edges:
        assert child not in settled
        settled.add(upper)
        reached[child] |= reached[upper]
    expected = np.zeros((len(columns), len(columns)), dtype=bool)
    for i, label in enumerate(columns):
        for j, other in enumerate(columns):
            expected[i, j] = i == j or other in above(network, label)
        assert {columns[j] for j in reached[i]} == {columns[j] for j in np.flatnonzero(expected[i])}
    assert (taxonomy.closure(columns).toarray() == expected).all()


@given(networks(), st.data())
def test_a_cycle_is_always_refused_with_its_path(network, data):
    low = data.draw(st.sampled_from(sorted(network)))
    high = data.draw(st.sampled_from(sorted({low} | above(network, low))))
    looped = {**network, high: (*network[high], low)}
    with pytest.raises(InputError, match=r"a cycle: .+ → ") as refused:
        Taxonomy(looped, origin="genres.yaml")
    assert str(refused.value).startswith("genres.yaml: ")
    path = str(refused.value).split("cycle: ")[1].split(";")[0].split(" → ")
    assert path[0] == path[-1]
    assert all(upper in looped[label] for label, upper in itertools.pairwise(path))


@pytest.mark.parametrize(
    ("network", "aliases", "message"),
    [
        ({"a": ("b",), "b": ("a",)}, {}, "a cycle: a → b → a; remove one of these parents|a cycle: b → a → b"),
        ({"a": ("a",)}, {}, "a cycle: a → a"),
        ({"rock": (), "punk": ("rok",)}, {}, "'rok', a parent of 'punk', is not a label; did you mean 'rock'?"),
        ({"rock": (), "punk": ("rawk",)}, {"rawk": "rock"}, "it is an alias; write the label 'rock'"),
        (
            {"rock": (), "pop": ("rock",)},
            {"pop": "rock"},
            r"'pop' is an alias of 'rock' and also a label \(pop → rock\)",
        ),
        ({"rock": ()}, {"rawk": "rocks"}, "alias 'rawk' stands for 'rocks', not a label; did you mean 'rock'"),
    ],
)
def test_unsound_taxonomies_are_refused(network, aliases, message):
    with pytest.raises(InputError, match=message):
        Taxonomy(network, aliases)


def test_an_unknown_label_is_refused_with_the_nearest():
    for ask in (PUNK.parents, PUNK.children, PUNK.resolve, PUNK.path, lambda x: PUNK.edges([x])):
        with pytest.raises(InputError, match="there is no label 'pukn'; did you mean 'punk'"):
            ask("pukn")


def test_names_that_fall_together_are_refused_with_both_paths():
    letters = lambda name: "".join(filter(str.isalpha, name.lower()))  # noqa: E731
    assert PUNK.renamed(letters) == {
        "folk": "folk",
        "rock": "rock",
        "punk": "punk",
        "folk punk": "folkpunk",
        "oi!": "oi",
    }
    collides = Taxonomy({"rock": (), "dance": (), "2-step": ("dance",), "step": ("rock",)})
    with pytest.raises(InputError, match="2-step → dance and step → rock would both be renamed to 'step'"):
        collides.renamed(letters)
    alias = Taxonomy({"rock": (), "r'n'b": ()}, {"RNB": "rock"})
    with pytest.raises(InputError, match="r'n'b and rock would both be renamed to 'rnb'"):
        alias.renamed(letters)
    assert Taxonomy({"hip hop": ()}, {"Hip-Hop": "hip hop"}).renamed(letters) == {"hip hop": "hiphop"}
