"""Guards that one run never writes over another: what differs is named, key by key."""

import json

import pytest

import genre_ray
from genre_ray.errors import OutputTakenError
from genre_ray.runs.identity import differences, documented, make_identity, refuse_other, run_id
from genre_ray.storage import objects

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
    with pytest.raises(OutputTakenError):
        refuse_other("out", other, ours, resume=True)


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


def test_another_run_is_refused_with_the_differences():
    theirs, ours = make_identity("j", SETTINGS), make_identity("j", SETTINGS | {"limit": 3, "inputs": []})
    with pytest.raises(OutputTakenError) as refused:
        refuse_other("out", theirs, ours, resume=True)
    assert refused.value.exit_code == 4
    message = str(refused.value)
    assert 'settings.inputs: ["a", "b"] there, [] here; settings.limit: null there, 3 here' in message
    assert run_id(theirs) in message
    assert "choose another --output" in message


def test_the_same_run_goes_on_only_when_asked_to():
    identity = make_identity("j", SETTINGS)
    refuse_other("out", identity, dict(identity), resume=True)
    with pytest.raises(OutputTakenError, match=r"already holds run .* pass --resume"):
        refuse_other("out", identity, identity, resume=False)


def test_a_document_belongs_to_the_run_that_wrote_it(tmp_path):
    uri, ours = str(tmp_path / "report.json"), make_identity("evaluate", {"seed": 1})
    assert not documented(uri, "out", ours, resume=False)
    objects.write_bytes(uri, json.dumps({"identity": ours}).encode())
    assert documented(uri, "out", ours, resume=True)
    with pytest.raises(OutputTakenError, match="pass --resume"):
        documented(uri, "out", ours, resume=False)
    with pytest.raises(OutputTakenError, match=r"settings\.seed: 1 there, 2 here"):
        documented(uri, "out", make_identity("evaluate", {"seed": 2}), resume=True)
    for other in (b"[]", b"{}", b"\xff", b"1"):
        objects.write_bytes(uri, other)
        with pytest.raises(OutputTakenError, match="found another file"):
            documented(uri, "out", ours, resume=True)
