"""Guards how two taxonomies are related: the relations' meaning, equal names and parents.

The sharpest cases are made by hand with counts from which the relation is plain; the real ones are Emotify's two
taxonomies of the same recordings.
"""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.labels.co_occurrence import CoOccurrence
from genre_ray.labels.mapping import Relations, Rule
from genre_ray.labels.space import label_matrix
from genre_ray.labels.taxonomy import Taxonomy
from genre_ray.truth.ground_truth import read_ground_truth

EMOTIFY = Path(__file__).parents[1] / "data" / "emotify"


def relate(ours, theirs, rule=Rule()):  # noqa: B008 - frozen
    """Relations between two lists of label sets, of the same recordings."""
    here, there = (Taxonomy.of_names(label for labels in side for label in labels) for side in (ours, theirs))
    blocks = [
        tuple(
            label_matrix([taxonomy.with_parents(labels) for labels in side], taxonomy.labels)
            for side, taxonomy in ((ours, here), (theirs, there))
        )
    ]
    return Relations(CoOccurrence.count(here.labels, there.labels, blocks), there, rule)


def relations(related):
    return {(row.from_label, row.to_label): row.relation for row in related.rows("a", "b")}


# jazz and Jazz are one, whose bop the second side does not tell apart; loud is all rock and most of pop.
OURS = [["jazz"]] * 30 + [["jazz", "jazz---bop"]] * 10 + [["rock"]] * 40 + [["pop"]] * 20 + [["folk"]] * 40
THEIRS = (
    [["Jazz"]] * 40 + [["loud"]] * 28 + [["loud", "soft"]] * 12 + [["loud"]] * 16 + [["soft"]] * 4 + [["soft"]] * 40
)


def test_relations_mean_what_they_say():
    related = relate(OURS, THEIRS)
    assert relations(related) == {
        ("jazz", "Jazz"): "same",
        ("jazz---bop", "Jazz"): "within",
        ("rock", "loud"): "same",
        ("pop", "loud"): "within",
        ("folk", "soft"): "same",
    }
    bop = next(row for row in related.rows("a", "b") if row.from_label == "jazz---bop")
    assert (bop.weight, bop.together, bop.count_from, bop.count_to) == (1.0, 10, 10, 40)
    assert bop.cosine == pytest.approx(10 / np.sqrt(10 * 40))
    assert bop.low < bop.weight
    assert (bop.from_taxonomy, bop.to_taxonomy, bop.by) == ("a", "b", "learnt")


def test_the_way_back_contains_what_the_way_there_is_within():
    back = relations(relate(THEIRS, OURS))
    assert back[("Jazz", "jazz---bop")] == back[("loud", "pop")] == "contains"
    assert back[("Jazz", "jazz")] == "same"


def test_too_few_recordings_say_nothing_and_equal_names_speak():
    few = relate([["Hip-Hop"]] * 4 + [["rock"]] * 30, [["hip hop---rap"]] * 4 + [["rock"]] * 30)
    named = {row.to_label: row for row in few.rows("a", "b") if row.from_label == "Hip-Hop"}
    assert set(named) == {"hip hop"}
    assert (named["hip hop"].relation, named["hip hop"].weight, named["hip hop"].by) == ("same", 1.0, "name")
    # A common label is known to be a rare one seldom, whatever they are called; the rare one's few are not denied.
    rare = relate([["jazz"]] * 40 + [["rock"]] * 40, [["Jazz"]] * 2 + [["x"]] * 38 + [["rock"]] * 40)
    row = next(row for row in rare.rows("a", "b") if row.to_label == "Jazz")
    assert (row.relation, row.weight, row.by) == ("same", 0.05, "name")
    never = relate([["jazz"]] * 40 + [["rock"]] * 40, [["x"]] * 40 + [["rock"]] * 38 + [["Jazz"]] * 2)
    assert ("jazz", "Jazz") not in relations(never)
    # With recordings enough these, not the name, decide.
    enough = relate([["rock"]] * 30 + [["pop"]] * 30, [["pop"]] * 30 + [["rock"]] * 30)
    assert relations(enough) == {("rock", "pop"): "same", ("pop", "rock"): "same"}


def test_a_name_that_speaks_for_a_label_speaks_for_those_above_it():
    related = relate([["rock---punk"]] * 2 + [["jazz"]] * 30, [["ROCK---Punk"]] * 2 + [["Jazz"]] * 30)
    rows = {(row.from_label, row.to_label): row for row in related.rows("a", "b")}
    assert rows[("rock---punk", "ROCK")].weight == rows[("rock---punk", "ROCK---Punk")].weight == 1.0
    assert rows[("rock---punk", "ROCK")].by == "name"


def test_labels_without_letters_have_no_name_in_common():
    related = relate([["1984"]] * 2 + [["x"]] * 9 + [["y"]] * 9, [["2000"]] * 2 + [["x"]] * 9 + [["z"]] * 9)
    assert relations(related) == {("x", "x"): "same", ("y", "z"): "same"}


def test_small_overlaps_are_left_out_but_for_the_best_witness():
    ours = [["rock"]] * 1000 + [["jazz"]] * 1000
    theirs = [["rare"]] * 10 + [["rock"]] * 990 + [["jazz"]] * 1000
    rows = {(row.from_label, row.to_label): row.weight for row in relate(ours, theirs).rows("a", "b")}
    assert rows[("rock", "rare")] == pytest.approx(0.01)
    mixed = [["rock"]] * 1000 + [["indie", "rock"]] * 40
    theirs = [["rare"]] * 10 + [["rock"]] * 990 + [["rare", "rock"]] * 30 + [["rock"]] * 10
    rows = {(row.from_label, row.to_label): row.weight for row in relate(mixed, theirs).rows("a", "b")}
    assert rows[("indie", "rare")] == 0.75
    assert ("rock", "rare") not in rows


label_sets = st.lists(st.sampled_from(["a", "a---b", "a---c", "d", "d---e"]), min_size=1, max_size=3, unique=True)


@given(st.lists(st.tuples(label_sets, label_sets), min_size=1, max_size=40), st.integers(1, 3))
def test_no_label_has_more_weight_than_its_parents(pairs, least):
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    related = relate(ours, theirs, Rule(least=least))
    for child, parent in related.above.edges(related.found.to_labels):
        assert (related.weights[:, child] <= related.weights[:, parent]).all()
    assert ((related.weights >= 0) & (related.weights <= 1)).all()
    for row in related.rows("a", "b"):
        assert row.low <= row.together / max(row.count_from, 1) <= row.high + 1e-12


def test_the_two_taxonomies_of_emotify():
    sides = []
    for name in ("tags", "folder"):
        truth = read_ground_truth(str(EMOTIFY / f"{name}.tsv"))
        sides.append(dict(zip(truth.recording_ids, truth.labels, strict=True)))
    shared = sorted(sides[0].keys() & sides[1].keys())
    related = relate(*([side[recording] for recording in shared] for side in sides))
    found = relations(related)
    # Both of the study's folders rock and pop are rock by the artists' own tags.
    assert found[("classical", "classical")] == found[("electronic", "electronic")] == "same"
    assert found[("rock", "rock")] == found[("rock", "pop")] == "contains"
    assert found[("rock---electro rock", "pop")] == found[("rock---hard rock", "rock")] == "within"
    weight = {(row.from_label, row.to_label): row.weight for row in related.rows("tags", "folder")}
    tagged = [recording for recording in shared if "rock" in sides[0][recording]]
    assert weight[("rock", "pop")] == sum("pop" in sides[1][recording] for recording in tagged) / len(tagged)
