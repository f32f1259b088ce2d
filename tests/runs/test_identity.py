"""Guards what makes two runs the same: whatever decides the result, and what differs is named, key by key."""

import pytest

import genre_ray
from genre_ray.runs.identity import differences, make_identity, run_id

SETTINGS = {"inputs": ["a", "b"], "limit": None, "split": {"seed": 1, "group_by": "artist"}}


def test_a_run_is_its_job_settings_sources_and_version():
    identity = make_identity("ingest", SETTINGS, bundles=["x"])
    assert identity == {"job": "ingest", "version": genre_ray.__version__, "settings": SETTINGS, "bundles": ["x"]}


def test_the_id_does_not_depend_on_the_order_of_keys():
    one, same = make_identity("j", {"a": 1, "b": {"c": 2, "d": 3}}), make_identity("j", {"b": {"d": 3, "c": 2}, "a": 1})
    assert run_id(one) == run_id(same)
    assert len(run_id(one)) == 16


@pytest.mark.parametrize(
    "other",
    [
        make_identity("predict", SETTINGS),
        make_identity("ingest", SETTINGS | {"limit": 1}),
        make_identity("ingest", SETTINGS, bundles=[]),
        make_identity("ingest", SETTINGS) | {"version": "0"},
    ],
)
def test_whatever_decides_the_result_changes_the_id(other):
    ours = make_identity("ingest", SETTINGS)
    assert run_id(other) != run_id(ours)
    assert list(differences(other, ours))


def test_a_name_that_is_no_utf8_has_an_id_too():
    assert run_id(make_identity("ingest", {"inputs": ["\udcff.json"]}))


def test_every_difference_is_named():
    theirs = {"a": 1, "same": 0, "split": {"seed": 1, "only": None}, "labels": ["rock"]}
    ours = {"a": 2, "same": 0, "split": {"seed": 1}, "labels": ["röck"], "more": True}
    assert list(differences(theirs, ours)) == [
        "a: 1 there, 2 here",
        'labels: ["rock"] there, ["röck"] here',
        "more: nothing there, true here",
        "split.only: null there, nothing here",
    ]
