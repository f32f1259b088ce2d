"""Datasets of features, for people who chain steps of their own with Ray Data."""

import pyarrow as pa
from ray.data import Dataset

from genre_ray.catalog.readers import read_items
from genre_ray.features.table import FeatureRows
from genre_ray.outcomes import Outcome
from genre_ray.storage import objects, tables


def read_features(uri: str) -> Dataset:
    """A features table as a dataset with the table's own columns, read by one task per part.

    >>> rows = read_features("output/features")
    >>> rows.columns()[:3]
    ['recording_id', 'submission', 'artist_ids']
    >>> len(rows.take(1)[0]["features"])
    2669

    Args:
        uri: the table, as `ingest` writes it.

    Raises:
        InputError: there is no table, or it has no rows.
    """
    # Workers have working directories of their own.
    source = FeatureRows(objects.absolute(uri))
    items = source.cut(source.list_inputs(), tables.ROW_GROUP_ROWS)
    return read_items(source, items, _accepted)


def _accepted(outcome: Outcome) -> pa.Table:
    return outcome.accepted
