"""Guards that an estimate says no more than was measured, and counts the rows that it can know."""

import re

import pytest

from genre_ray.catalog.sources import DocumentSource
from genre_ray.config import Execution
from genre_ray.features.table import FeatureRows, FeaturesStep
from genre_ray.runs.estimate import describe
from genre_ray.storage import tables
from genre_ray.storage.tables import Append


def said(source, step, **execution):
    items = source.cut(source.list_inputs(), 5000)
    return list(describe(items, source, step, Execution(**execution)))


def test_an_archive_has_no_total_before_it_is_read(sample):
    lines = said(DocumentSource((str(sample / "emotify" / "documents.tar.zst"),), limit=20), FeaturesStep())
    assert re.search(r"^[\d.]+ ms a row to read and compute, measured here on 20 rows$", lines[-2])
    assert "no estimate of the whole" in lines[-1]


@pytest.mark.parametrize(("workers", "used"), [(None, 1), (1, 1), (8, 1)])
def test_single_documents_are_counted(sample, workers, used):
    """No more workers than items can work at once."""
    lines = said(DocumentSource((str(sample / "acousticbrainz"),)), FeaturesStep(), workers=workers)
    assert lines[0].startswith("dry run: 1 work items, 6 inputs")
    assert re.search(rf"^about [\d.]+ s for 6 rows on {used} of such workers$", lines[-1])


def test_the_rows_of_a_table_are_known_from_its_log(tmp_path, sample):
    uri, step = str(tmp_path / "features"), FeaturesStep()
    source = DocumentSource((str(sample / "acousticbrainz"),))
    (item,) = source.cut(source.list_inputs(), 5000)
    (rows,) = [step(chunk)[0] for _, chunk in source.read(item, 5000, 0)]
    tables.create_table(uri, step.schema, {})
    parts = [tables.write_part(uri, name, rows) for name in "ab"]
    tables.append(tables.open_table(uri), [Append("one", parts)], step.schema)

    def keep_all(batch):
        return batch, batch.slice(0, 0)

    assert f"for {2 * rows.num_rows} rows on 2 of" in said(FeatureRows(uri), keep_all, workers=4)[-1]
    assert "for 8 rows on 2 of" in said(FeatureRows(uri, limit=8), keep_all, workers=4)[-1]
    assert "for 2 rows on 1 of" in said(FeatureRows(uri, limit=2), keep_all)[-1]


def test_nothing_is_said_to_be_nothing(numbers_of, keep):
    assert said(numbers_of(0), keep())[-1] == "no rows were found to measure"
    assert said(numbers_of(), keep())[-1] == "no rows were found to measure"
