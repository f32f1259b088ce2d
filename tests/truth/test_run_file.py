"""Guards that runs are read as they are written, and refused where the task's own checker refuses them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.truth.ground_truth import label_fault
from genre_ray.truth.run_file import format_run, read_run

NAMES = st.text(min_size=1, max_size=5).filter(lambda name: label_fault(name) is None)


@given(st.dictionaries(st.text("abc0-", min_size=1), st.lists(NAMES, min_size=1, unique=True).map(tuple)))
def test_a_run_is_read_as_it_was_written(tmp_path_factory, run):
    path = tmp_path_factory.mktemp("run") / "run.tsv"
    path.write_bytes(format_run(run.items()))
    assert read_run(str(path)) == run
    assert list(read_run(str(path))) == list(run)


def test_the_form_of_a_row():
    assert format_run([("a", ["rock", "rock---indie"]), ("b", ["funk / soul"])]) == (
        b"a\trock\trock---indie\nb\tfunk / soul\n"
    )
    assert format_run([]) == b""


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", ["x"]), ("b", [])], "line 2: expected at least one label, found none"),
        ([("a", ["x", "x"])], "line 1: expected each label once, found 'x' twice"),
        ([("a", ["x"]), ("a", ["y"])], "line 2: expected each recording once, found a again"),
        ([("a", ["z"]), ("b", ["x"])], "line 1: expected a label of the vocabulary, found 'z'"),
        ([("a", ["x"]), ("b", ["x"]), ("c", ["x"])], "line 3: expected a recording of the ground truth, found c"),
        ([("b", ["x"])], "expected a row for each of 2 recordings, found none for 1 of them, e.g. a"),
        ([("", ["x"])], "line 1: expected a recording id"),
        ([("a", ["x", ""])], "line 1: expected `genre` or `genre---subgenre`, found '', which has an empty name"),
        ([("a", ["x------y"])], "which has an empty name"),
    ],
)
def test_what_the_checker_refuses_is_refused(tmp_path, rows, message):
    limits = {"vocabulary": {"x", "y"}, "recording_ids": ["a", "b"]}
    with pytest.raises(InputError) as written:
        format_run(rows, **limits)
    assert message in str(written.value)
    path = tmp_path / "run.tsv"
    path.write_text("".join("\t".join([recording, *labels]) + "\n" for recording, labels in rows))
    with pytest.raises(InputError) as found:
        read_run(str(path), **limits)
    assert message in str(found.value)


@pytest.mark.parametrize("rows", [[("a\tb", ["x"])], [("a\n", ["x"])], [("a", ["x\ty"])], [("a", ["x\ny"])]])
def test_what_would_break_a_row_is_not_written(rows):
    with pytest.raises(InputError):
        format_run(rows)


def test_without_limits_any_label_and_recording_will_do(tmp_path):
    path = tmp_path / "run.tsv"
    path.write_text("a\tx\nb\ty---z\n")
    assert read_run(str(path)) == {"a": ("x",), "b": ("y---z",)}


def test_an_empty_run_lacks_every_recording(tmp_path):
    path = tmp_path / "run.tsv"
    path.write_text("")
    assert read_run(str(path)) == {}
    with pytest.raises(InputError, match=r"found none for 1 of them, e\.g\. a"):
        read_run(str(path), recording_ids=["a"])
