"""The features table: documents in, the same vectors out, in the same shards wherever a read begins."""

import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.errors import InputError
from genre_ray.features.essentia.columns import FEATURE_COLUMNS
from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.features.essentia.flatten import flatten
from genre_ray.outcomes import REJECTED_ROW, Reason, Rejection
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Resources, ShardSize
from genre_ray.sources.documents.parse import parse_document
from genre_ray.sources.documents.table import DOCUMENTS
from genre_ray.sources.tables import TableRows
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES

CRASHED = Rejection(Reason.CRASHED, "exit code 3, twice")


def documents_of(*rows):
    return pa.Table.from_pylist(
        [
            {"name": name, "source_uri": f"s3://b/{name}", "recording_id": name[:-5], "payload": payload}
            for name, payload in rows
        ],
        DOCUMENTS,
    )


@pytest.mark.parametrize("slices", [[(0, 9)], [(0, 3), (3, 9)], [(0, 0), (0, 1), (1, 5), (5, 9)]])
def test_documents_become_rows_or_rejections(sample, slices):
    files = sorted((sample / "acousticbrainz").glob("*.json"))
    raw = [(file.name, file.read_bytes()) for file in files]
    raw[2:2] = [("broken.json", b"{"), ("empty.json", b"")]
    raw.insert(0, ("first.json", b"[]"))
    whole = documents_of(*raw)
    stage = ParseDocuments()
    # However a shard's rows are bundled, nothing is copied into one piece.
    accepted, rejected = stage.open()(pa.concat_tables([whole.slice(start, stop - start) for start, stop in slices]))
    assert accepted.schema.equals(stage.schema, check_metadata=True)
    assert (accepted.num_rows, rejected.num_rows) == (6, 3)
    vectors = tables.vectors(accepted.column("features"))
    assert vectors.shape == (6, len(FEATURE_COLUMNS)) == (6, 2669)
    for row, vector, file in zip(accepted.to_pylist(), vectors, files, strict=True):
        document = parse_document(file.name, file.read_bytes())
        np.testing.assert_array_equal(vector, flatten(document))
        assert (row["recording_id"], row["submission"]) == (file.stem, 0)
        assert row["source_uri"] == f"s3://b/{file.name}"
        assert tuple(row["artist_ids"]) == document.artist_ids
        assert (row["release_group_id"], row["extractor"]) == (document.release_group_id, document.extractor)
    assert rejected.schema.equals(REJECTED_ROW)
    assert [tuple(row.values())[:3] for row in rejected.to_pylist()] == [
        ("s3://b/first.json", "first", Reason.NOT_AN_OBJECT),
        ("s3://b/broken.json", "broken", Reason.NOT_JSON),
        ("s3://b/empty.json", "empty", Reason.EMPTY),
    ]


def test_no_documents_make_no_rows():
    for rows in (DOCUMENTS.empty_table(), documents_of(("a.json", b"{}")).slice(1)):
        accepted, rejected = ParseDocuments().open()(rows)
        assert accepted.schema.equals(ParseDocuments.schema, check_metadata=True)
        assert (accepted.num_rows, rejected.num_rows) == (0, 0)


def test_a_stage_travels():
    stage = pickle.loads(pickle.dumps(ParseDocuments(resources=Resources(2))))
    assert (stage.name, str(stage.resources), stage.rows_per_call) == ("parse", "2 CPU", None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    rows_per_shard=st.integers(1, 70),
    first=st.integers(0, 12),
    group=st.integers(1, 30),
    take=st.integers(1, 60),
    failed=st.none() | st.integers(0, 60),
    singly=st.booleans(),
)
def test_shards_are_the_same_wherever_a_read_begins(fifty_rows, rows_per_shard, first, group, take, failed, singly):
    source = TableRows(fifty_rows)
    (file,) = source.list_inputs()
    item = WorkItem("t000000", "table", (file,), take, is_counted=True)
    count = min(take, 50)
    expected = [(n // rows_per_shard, f"r{n:04d}") for n in range(count)]
    expected = [row for row in expected if row[0] >= first]
    why = {} if failed is None else {failed: CRASHED}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_ROWS", group)
        read = source.read(item, ShardSize(rows_per_shard), first, why, singly=singly)
        if why:
            # The rows after it would be lost: a part that cannot be read is an error.
            with pytest.raises(InputError, match=rf"at row {failed}. The part is damaged"):
                list(read)
            return
        if not expected and first:
            with pytest.raises(InputError, match=f"this part ends before shard {first}"):
                list(read)
            return
        chunks = list(read)
    found = [(shard, row) for shard, (accepted, _), _ in chunks for row in accepted.column("recording_id").to_pylist()]
    assert found == expected
    assert all(outcome.num_rows == 1 if singly else 0 < outcome.num_rows <= group for _, outcome, _ in chunks)
    assert all(accepted.schema.equals(source.schema, check_metadata=True) for _, (accepted, _), _ in chunks)
    assert not any(outcome.rejected.num_rows for _, outcome, _ in chunks)


@pytest.fixture(scope="module")
def fifty_rows(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("table") / "features")
    schema = FEATURES
    rows = pa.Table.from_pylist([{"recording_id": f"r{n:04d}", "features": [float(n)]} for n in range(50)], schema)
    tables.create_table(uri, schema, {})
    tables.append(tables.open_table(uri), [tables.Append("run/0", [tables.write_part(uri, "p", rows)])], schema)
    return uri


def test_every_part_is_a_work_item_of_its_own(write_features):
    uri = write_features(np.arange(12).reshape(6, 2), parts=3)
    source = TableRows(uri)
    items = source.make_work_items(source.list_inputs(), 1000)
    assert len({item.name for item in items}) == 3
    rows = [outcome.accepted for item in items for _, outcome, _ in source.read(item, ShardSize(1000))]
    np.testing.assert_array_equal(
        np.concatenate([tables.vectors(batch.column("features")) for batch in rows]), np.arange(12).reshape(6, 2)
    )
    # The plan holds what the parts were: they never change.
    assert all(item.files[0].version == item.files[0].name for item in items)


def test_a_column_that_is_not_there_is_refused(write_features):
    with pytest.raises(InputError, match=r"the table lacks the columns bpm \(it has recording_id, submission"):
        _ = TableRows(write_features(np.ones((5, 3))), columns=("recording_id", "bpm")).schema


def test_an_empty_or_absent_table_is_refused(tmp_path):
    uri = str(tmp_path / "features")
    with pytest.raises(InputError, match="there is no Delta table"):
        TableRows(uri).list_inputs()
    tables.create_table(uri, ParseDocuments.schema, {})
    with pytest.raises(InputError, match="the table is empty"):
        TableRows(uri).list_inputs()


def test_only_the_columns_that_are_asked_for_are_read(write_features):
    source = TableRows(write_features(np.ones((5, 3)), parts=1), columns=("recording_id", "features"))
    assert source.schema.names == ["recording_id", "features"]
    (item,) = source.make_work_items(source.list_inputs(), 4)
    chunks = list(source.read(item, ShardSize(4)))
    assert [(shard, rows.schema.names, rows.num_rows) for shard, (rows, _), _ in chunks] == [
        (0, ["recording_id", "features"], 4),
        (1, ["recording_id", "features"], 1),
    ]


def test_row_groups_before_the_wanted_shard_are_not_read(write_features, monkeypatch):
    monkeypatch.setattr(tables, "ROW_GROUP_ROWS", 2)
    source = TableRows(write_features(np.ones((9, 3)), parts=1))
    (item,) = source.make_work_items(source.list_inputs(), 3)
    asked, iterate = [], pq.ParquetFile.iter_batches

    def spied(self, *args, row_groups, **options):
        asked.extend(row_groups)
        return iterate(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spied)
    assert sum(outcome.num_rows for _, outcome, _ in source.read(item, ShardSize(3), 2)) == 3
    assert asked == [3, 4]
