"""Guards that documents are a Ray dataset like any other, as the example in the documentation shows."""

import doctest
import warnings
from pathlib import Path

import pytest
import ray
from ray.data import DataContext
from ray.util.annotations import RayDeprecationWarning

from genre_ray.outcomes import Reason
from genre_ray.sources import readers
from genre_ray.sources.documents.source import DocumentSource
from genre_ray.sources.readers import SourceDatasource, read_documents

pytestmark = [
    pytest.mark.filterwarnings("error::DeprecationWarning"),
    pytest.mark.filterwarnings("error::ray.util.annotations.RayDeprecationWarning"),
]
COLUMNS = ["name", "source_uri", "recording_id", "payload", "reason", "detail"]


@pytest.fixture
def connected(ray_cluster):
    ray.init(ignore_reinit_error=True)
    with warnings.catch_warnings(action="ignore"):
        # Ray warns of settings that it sets itself.
        DataContext.get_current()
    warnings.filterwarnings("error", category=RayDeprecationWarning)


def test_the_example_in_the_documentation(connected, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    (example,) = doctest.DocTestFinder(recurse=False).find(read_documents, globs={"read_documents": read_documents})
    results = doctest.DocTestRunner().run(example)
    assert (results.failed, results.attempted) == (0, 5)


def test_documents_and_rejected_rows_are_one_dataset(connected, sample, tmp_path):
    (tmp_path / "empty.tar").touch()
    inputs = (str(tmp_path), str(sample / "acousticbrainz"))
    dataset = read_documents(*inputs)
    assert dataset.schema().names == COLUMNS
    rows = dataset.take_all()
    assert [list(row) for row in rows] == [COLUMNS] * 7
    (rejected,) = [row for row in rows if row["reason"]]
    assert rejected["source_uri"] == f"{tmp_path}/empty.tar"
    assert (rejected["reason"], rejected["payload"], rejected["name"]) == (Reason.ARCHIVE_UNREADABLE, None, None)
    read = {row["name"]: row["payload"] for row in rows if not row["reason"]}
    assert read == {path.name: path.read_bytes() for path in (sample / "acousticbrainz").glob("*.json")}
    assert read_documents(*inputs).limit(2).count() == 2


def test_relative_inputs_are_those_of_the_caller(connected, sample, monkeypatch):
    monkeypatch.chdir(sample)
    assert read_documents("acousticbrainz").count() == 6


def test_a_task_per_work_item_is_made_without_reading(sample):
    source = DocumentSource((str(sample / "acousticbrainz"), str(sample / "emotify" / "documents.tar.zst")))
    items = list(source.make_work_items(source.list_inputs(), 2))
    datasource = SourceDatasource(source, items, readers._documents_block)
    for _ in range(2):
        tasks = datasource.get_read_tasks(1)
        assert [task.metadata.input_files for task in tasks] == [
            tuple(file.uri for file in item.files) for item in items
        ]
    assert datasource.get_name() == "Documents"
    assert sum(block.num_rows for task in tasks for block in task()) == 150
