"""Guards that a features table is a Ray dataset like any other, as the example in the documentation shows."""

import doctest
import warnings

import numpy as np
import pytest
import ray
from ray.data import DataContext
from ray.util.annotations import RayDeprecationWarning

from genre_ray.features.essentia.documents import ParseDocuments
from genre_ray.runs.stages import ShardSize
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.sources.readers import read_features
from genre_ray.storage import tables

pytestmark = [
    pytest.mark.filterwarnings("error::DeprecationWarning"),
    pytest.mark.filterwarnings("error::ray.util.annotations.RayDeprecationWarning"),
]


@pytest.fixture
def connected(ray_cluster):
    ray.init(ignore_reinit_error=True)
    with warnings.catch_warnings(action="ignore"):
        # Ray warns of settings that it sets itself.
        DataContext.get_current()
    warnings.filterwarnings("error", category=RayDeprecationWarning)


def test_the_example_in_the_documentation(connected, sample, tmp_path, monkeypatch):
    source, parse = DocumentSource((str(sample / "acousticbrainz"),)), ParseDocuments()
    (item,) = source.make_work_items(source.list_inputs(), 10)
    ((_, documents, _),) = source.read(item, ShardSize(10))
    uri, rows = str(tmp_path / "output" / "features"), parse.open()(documents.accepted).accepted
    tables.create_table(uri, parse.schema, {})
    tables.append(tables.open_table(uri), [tables.Append("one", [tables.write_part(uri, "p", rows)])], parse.schema)
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(read_features, globs={"read_features": read_features})
    results = doctest.DocTestRunner().run(example)
    assert (results.failed, results.attempted) == (0, 3)


def test_all_rows_of_all_parts_are_read(connected, write_features):
    values = np.arange(12, dtype=np.float32).reshape(6, 2)
    dataset = read_features(write_features(values, parts=3))
    found = np.array(sorted(row["features"] for row in dataset.take_all()))
    np.testing.assert_array_equal(found, values)
