"""The features table: documents in, the same vectors out, cut into the same shards wherever a read begins."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre_ray.catalog.archives import RawDocument
from genre_ray.catalog.documents import parse_document
from genre_ray.errors import InputError
from genre_ray.features.columns import FEATURE_COLUMNS
from genre_ray.features.flatten import flatten
from genre_ray.features.table import FeatureRows, FeaturesStep, table_columns
from genre_ray.outcomes import Reason, Rejection
from genre_ray.runs.plan import WorkItem
from genre_ray.storage import tables
from genre_ray.storage.schemas import features_schema


def test_documents_become_rows_or_rejections(sample):
    files = sorted((sample / "acousticbrainz").glob("*.json"))
    raw = [RawDocument(file.name, f"s3://b/{file.name}", file.read_bytes()) for file in files]
    raw[2:2] = [
        RawDocument("broken.json", "s3://b/broken.json", b"{"),
        RawDocument("lost.json", "s3://b/lost.json", Rejection(Reason.TOO_LARGE, "2 bytes", "lost")),
    ]
    accepted, rejected = FeaturesStep()(raw)
    assert accepted.schema.equals(FeaturesStep.schema, check_metadata=True)
    assert (accepted.num_rows, rejected.num_rows) == (6, 2)
    vectors = tables.vectors(accepted.column("features"))
    assert vectors.shape == (6, len(FEATURE_COLUMNS)) == (6, 2669)
    for row, vector, file in zip(accepted.to_pylist(), vectors, files, strict=True):
        document = parse_document(file.name, file.read_bytes())
        np.testing.assert_array_equal(vector, flatten(document))
        assert (row["recording_id"], row["submission"]) == (file.stem, 0)
        assert row["source_uri"] == f"s3://b/{file.name}"
        assert tuple(row["artist_ids"]) == document.artist_ids
        assert (row["release_group_id"], row["extractor"]) == (document.release_group_id, document.extractor)
    assert rejected.to_pylist()[1] == {
        "source_uri": "s3://b/lost.json",
        "recording_id": "lost",
        "reason": Reason.TOO_LARGE,
        "detail": "2 bytes",
    }


def test_no_documents_make_no_rows():
    accepted, rejected = FeaturesStep()([])
    assert accepted.schema.equals(FeaturesStep.schema, check_metadata=True)
    assert (accepted.num_rows, rejected.num_rows) == (0, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(rows_per_shard=st.integers(1, 70), first=st.integers(0, 12), group=st.integers(1, 30), take=st.integers(1, 60))
def test_shards_are_the_same_wherever_a_read_begins(fifty_rows, rows_per_shard, first, group, take):
    source = FeatureRows(fifty_rows)
    (file,) = source.list_inputs()
    item = WorkItem("t000000", "table", (file,), take)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "ROW_GROUP_ROWS", group)
        chunks = list(source.read(item, rows_per_shard, first))
    found = [(shard, row) for shard, rows in chunks for row in rows.column("recording_id").to_pylist()]
    expected = [(n // rows_per_shard, f"r{n:04d}") for n in range(min(take, 50)) if n // rows_per_shard >= first]
    assert found == expected
    assert all(len(rows) for _, rows in chunks)


@pytest.fixture(scope="module")
def fifty_rows(tmp_path_factory):
    uri = str(tmp_path_factory.mktemp("table") / "features")
    schema = features_schema(["c0"])
    rows = pa.Table.from_pylist([{"recording_id": f"r{n:04d}", "features": [float(n)]} for n in range(50)], schema)
    tables.create_table(uri, schema, {})
    tables.append(tables.open_table(uri), [tables.Append("run/0", [tables.write_part(uri, "p", rows)])], schema)
    return uri


def test_every_part_is_a_work_item_of_its_own(write_features):
    uri = write_features(np.arange(12).reshape(6, 2), parts=3)
    source = FeatureRows(uri)
    items = source.cut(source.list_inputs(), 1000)
    assert len({item.name for item in items}) == 3
    rows = [batch for item in items for _, batch in source.read(item, 1000, 0)]
    np.testing.assert_array_equal(
        np.concatenate([tables.vectors(batch.column("features")) for batch in rows]), np.arange(12).reshape(6, 2)
    )
    # The plan holds what the parts were: they never change.
    assert all(item.files[0].version == item.files[0].name for item in items)


def test_columns_are_known_by_name_and_order(write_features, tmp_path):
    assert table_columns(write_features(np.zeros((1, 3)), parts=1)) == ("c0", "c1", "c2")
    other = str(tmp_path / "other")
    schema = pa.schema([("recording_id", pa.string())])
    tables.create_table(other, schema, {})
    rows = pa.table({"recording_id": ["a"]})
    tables.append(tables.open_table(other), [tables.Append("run/0", [tables.write_part(other, "p", rows)])], schema)
    with pytest.raises(InputError, match=r"expected a features table with genre_ray.columns in its parts"):
        table_columns(other)


def test_an_empty_or_absent_table_is_refused(tmp_path):
    uri = str(tmp_path / "features")
    with pytest.raises(InputError, match="expected a Delta table, found none"):
        FeatureRows(uri).list_inputs()
    tables.create_table(uri, FeaturesStep.schema, {})
    with pytest.raises(InputError, match="expected a table with rows, found an empty one"):
        FeatureRows(uri).list_inputs()


def test_only_the_columns_that_are_asked_for_are_read(write_features):
    source = FeatureRows(write_features(np.ones((5, 3)), parts=1), columns=("recording_id", "features"))
    (item,) = source.cut(source.list_inputs(), 4)
    chunks = list(source.read(item, 4, 0))
    assert [(shard, rows.schema.names, rows.num_rows) for shard, rows in chunks] == [
        (0, ["recording_id", "features"], 4),
        (1, ["recording_id", "features"], 1),
    ]
