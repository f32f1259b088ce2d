"""Examples name rows of a table, and the rows that are read are those rows."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre_ray.labels.space import label_matrix
from genre_ray.labels.splits import PARTS
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES
from genre_ray.training.examples import Annotations, Examples
from genre_ray.training.reading import load_rows


def examples_of(recordings, parts, label_sets):
    """One example for each of `recordings`, which may come several times, with the same part and labels."""
    ids, first, places = np.unique(recordings, return_index=True, return_inverse=True)
    matrix = label_matrix([label_sets[place] for place in first], ("jazz", "rock"))
    return Examples(
        labels=("jazz", "rock"),
        recording_ids=pa.array(ids.tolist()),
        parts=np.array([PARTS.index(parts[place]) for place in first], dtype=np.int8),
        matrix=matrix,
        rows=np.arange(len(recordings))[None],
        recordings=places.astype(np.int32),
        weights=np.ones(len(recordings), dtype=np.float32),
        taxonomies={"t": Annotations(("jazz", "rock"), np.arange(2), matrix)},
    )


@pytest.mark.parametrize("batch_rows", [1, 7, 1024])
def test_loaded_rows_are_the_tables_rows(write_features, batch_rows):
    generator = np.random.default_rng(0)
    values = generator.normal(size=(50, 4)).astype(np.float32)
    values[3, 2] = np.nan
    uri = write_features(values, parts=3)
    whole = np.concatenate(
        [tables.vectors(batch.column("features")) for batch in tables.read_batches(uri, ["features"], version=1)]
    )
    np.testing.assert_array_equal(whole, values)
    for rows in ([], [0], [49], [0, 3, 16, 17, 18, 33, 34, 49], range(50)):
        rows = np.array(rows, dtype=np.int64)
        found = [*load_rows(uri, 1, rows, batch_rows)]
        assert all(0 < len(batch) <= batch_rows for batch in found)
        np.testing.assert_array_equal(np.concatenate(found) if found else whole[:0], whole[rows])


def test_rows_are_those_of_the_version_they_were_counted_in(write_features):
    uri = write_features(np.ones((4, 2)), parts=1)
    schema = FEATURES
    rows = pa.Table.from_pylist([{"recording_id": "later", "features": [0.0, 0.0]}] * 4, schema)
    # By its name the later part comes first.
    tables.append(tables.open_table(uri), [tables.Append("run/1", [tables.write_part(uri, "a-part", rows)])], schema)
    assert np.concatenate([*load_rows(uri, 2, np.arange(4))]).sum() == 0
    assert np.concatenate([*load_rows(uri, 1, np.arange(4))]).sum() == 8


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 3)), min_size=1, max_size=20))
def test_a_bundle_keeps_each_recording_once(submissions):
    numbers = {recording: ord(recording) for recording in "abcde"}
    truth = {recording: (("train", "test")[n % 2], ["jazz", "rock"][: n % 3]) for recording, n in numbers.items()}
    recordings = [recording for recording, _ in submissions]
    found = examples_of(recordings, [truth[r][0] for r in recordings], [truth[r][1] for r in recordings])
    rows = found.per_recording().to_pylist()
    annotated = [r for r in "abcde" if truth[r][1]]
    assert [(row["recording_id"], row["taxonomy"]) for row in rows] == [
        (recording, "t") for recording in annotated if recording in recordings
    ]
    assert all((row["part"], row["labels"]) == truth[row["recording_id"]] for row in rows)


def test_targets_and_parts():
    found = examples_of(["a", "b", "c"], ["train", "test", "train"], [("jazz",), ("rock",), ("jazz", "rock")])
    assert found.of("train").targets().tolist() == [[1, 0], [1, 1]]
    assert found.of("train").rows.tolist() == [[0, 2]]
    assert len(found.of("validation")) == 0
    assert found.of("validation").targets().shape == (0, 2)
