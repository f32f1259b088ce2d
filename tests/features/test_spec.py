"""What features are is stated once, in the table's properties, and cannot be altered unseen."""

import json

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from genre_ray.errors import InputError
from genre_ray.features.essentia.columns import ESSENTIA, FEATURE_COLUMNS
from genre_ray.features.spec import Axis, FeatureSpec, read_spec
from genre_ray.storage import tables

MEL = FeatureSpec("log-mel", (Axis("mels", 128), Axis("frames", 216)), parameters={"sample_rate_hz": 16000, "hop": 512})


@pytest.mark.parametrize("spec", [ESSENTIA, MEL, FeatureSpec.of_columns("é", ["a", "ü"])])
def test_it_survives_json(spec):
    again = FeatureSpec.from_dict(json.loads(json.dumps(spec.as_dict())))
    assert again == spec
    assert again.hash == spec.hash


def test_documents_have_2669_named_columns():
    assert (ESSENTIA.kind, ESSENTIA.shape, ESSENTIA.dtype) == ("essentia-2669", (Axis("columns", 2669),), "float32")
    assert ESSENTIA.columns == FEATURE_COLUMNS


@pytest.mark.parametrize(
    "changed",
    [
        {"kind": "cqt"},
        {"dtype": "float16"},
        {"shape": (Axis("frames", 216), Axis("mels", 128))},
        {"parameters": {"sample_rate_hz": 22050, "hop": 512}},
    ],
)
def test_another_specification_has_another_hash(changed):
    known = {"kind": MEL.kind, "shape": MEL.shape, "dtype": MEL.dtype, "parameters": MEL.parameters}
    assert FeatureSpec(**known).hash == MEL.hash
    assert FeatureSpec(**(known | changed)).hash != MEL.hash
    assert FeatureSpec.of_columns("x", ["a", "b"]).hash != FeatureSpec.of_columns("x", ["b", "a"]).hash


def test_columns_fit_the_shape():
    with pytest.raises(ValueError, match="expected one axis of 1 columns"):
        FeatureSpec("x", (Axis("columns", 2),), columns=("a",))


def test_a_table_states_it_after_optimize(write_features):
    uri = write_features(np.zeros((4, 3)), parts=2)
    DeltaTable(uri).optimize.compact()
    assert read_spec(uri) == FeatureSpec.of_columns("test", ("c0", "c1", "c2"))


@pytest.mark.parametrize(
    ("properties", "message"),
    [
        ({}, "expected a features table, found a table without the property genre_ray.feature_spec"),
        ({"feature_spec": "{"}, "feature specification in the property genre_ray.feature_spec is damaged"),
        ({"feature_spec": "[]"}, "feature specification"),
        ({"feature_spec": json.dumps({**MEL.as_dict(), "kind": "cqt"})}, "its hash is .* instead of"),
    ],
)
def test_a_table_that_states_none_or_an_altered_one_is_refused(tmp_path, properties, message):
    uri = str(tmp_path / "table")
    tables.create_table(uri, pa.schema([("recording_id", pa.string())]), properties)
    with pytest.raises(InputError, match=message):
        read_spec(uri)
