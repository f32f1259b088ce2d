"""Guards what is reported of two taxonomies that contradict each other, and that nothing is where they agree."""

from genre_ray.labels.co_occurrence import CoOccurrence
from genre_ray.labels.conflicts import name_conflicts, parent_conflicts, without_counterpart
from genre_ray.labels.mapping import Relations, Rule
from genre_ray.labels.space import label_matrix
from genre_ray.labels.taxonomy import Taxonomy


def relate(ours, theirs):
    """(first taxonomy, relations from it to the second) of two lists of label sets of the same recordings."""
    here, there = (Taxonomy.of_names(label for labels in side for label in labels) for side in (ours, theirs))
    first, second = (
        label_matrix([taxonomy.with_parents(labels) for labels in side], taxonomy.labels)
        for side, taxonomy in ((ours, here), (theirs, there))
    )
    return here, Relations(CoOccurrence.count(here.labels, there.labels, [(first, second)]), there, Rule())


def found(ours, theirs):
    taxonomy, there = relate(ours, theirs)
    every = [
        *name_conflicts("a", "b", there),
        *parent_conflicts("a", "b", there, taxonomy),
        *without_counterpart("a", "b", there),
    ]
    return {(conflict.reason, conflict.from_label, conflict.to_label): conflict for conflict in every}


def test_taxonomies_that_agree_have_none():
    sets = [["rock", "rock---punk"]] * 20 + [["rock"]] * 20 + [["jazz"]] * 30
    assert found(sets, sets) == {}


def test_equal_names_of_different_recordings():
    ours = [["garage"]] * 40 + [["dance"]] * 40 + [["folk"]] * 40
    theirs = [["rock"]] * 36 + [["Garage!"]] * 4 + [["Garage!"]] * 36 + [["rock"]] * 4 + [["folk"]] * 40
    conflicts = found(ours, theirs)
    assert set(conflicts) == {("apart", "garage", "Garage!")}
    conflict = conflicts["apart", "garage", "Garage!"]
    assert (conflict.together, conflict.count_from, conflict.count_to) == (4, 40, 40)
    assert conflict.expected == 40 * 40 / 120
    assert 0.1 < conflict.high < 0.5


def test_equal_last_levels_that_never_stand_together():
    ours = [["rock", "rock---garage"]] * 20 + [["rock"]] * 20 + [["dance"]] * 40
    theirs = [["rock"]] * 40 + [["dance"]] * 20 + [["dance", "dance---garage"]] * 20
    conflicts = found(ours, theirs)
    assert set(conflicts) == {("never_together", "rock---garage", "dance---garage")}
    assert "last level" in conflicts["never_together", "rock---garage", "dance---garage"].detail


def test_a_few_recordings_are_no_contradiction():
    ours = [["garage"]] * 4 + [["dance"]] * 40 + [["folk"]] * 40
    theirs = [["dance"]] * 44 + [["garage"]] * 4 + [["folk"]] * 36
    assert found(ours, theirs) == {}


def test_a_label_below_what_the_others_do_not_put_it_below():
    ours = [["rock", "rock---rockabilly"]] * 20 + [["rock"]] * 100 + [["country"]] * 40
    theirs = [["country"]] * 20 + [["Rock"]] * 100 + [["country"]] * 40
    conflicts = found(ours, theirs)
    assert set(conflicts) == {("parent_apart", "rock---rockabilly", "Rock")}
    conflict = conflicts["parent_apart", "rock---rockabilly", "Rock"]
    assert (conflict.together, conflict.count_from, conflict.count_to) == (0, 20, 100)
    assert "'rock'" in conflict.detail


def test_labels_without_counterpart_are_told():
    theirs = [["rock"]] * 42 + [["jazz"]] * 38 + [["jazz", "jazz---garage"]] * 3
    conflicts = found([["rock"]] * 40 + [["garage"]] + [["odd"]] * 2 + [["jazz"]] * 40, theirs)
    assert set(conflicts) == {("no_counterpart", "odd", ""), ("no_counterpart", "garage", "")}
    assert conflicts["no_counterpart", "odd", ""].count_from == 2
    assert conflicts["no_counterpart", "garage", ""].detail == "labels with the same last level: jazz---garage"
