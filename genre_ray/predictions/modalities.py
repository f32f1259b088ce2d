"""The stage that adds the features of further tables to rows of one, for models of several modalities."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genre_ray.outcomes import Outcome, rejections
from genre_ray.runs.stages import Compute, Resources
from genre_ray.storage import tables
from genre_ray.storage.schemas import FEATURES
from genre_ray.training.reading import ABSENT, FeaturesTable, Parts, read_positions

PREFIX = "features_"
"""Before the name of a modality: the column of its features."""


@dataclass
class AddModalities:
    """A stage: rows of a features table → the same rows, with a column of features for each further table.

    A recording's features are those of its first submission in that table. They are null where it has none, and the
    model then takes the modality as missing.

    Attributes:
        others: the further tables by modality.
        columns: the columns of the rows.
        resources: what a worker reserves.
    """

    name = "add modalities"

    others: Mapping[str, FeaturesTable]
    columns: tuple[str, ...]
    rows_per_call: int | None = None
    resources: Resources | None = None

    def __post_init__(self) -> None:
        vector = FEATURES.field("features").type
        self.schema = pa.schema(
            [*(FEATURES.field(name) for name in self.columns), *((PREFIX + name, vector) for name in self.others)]
        )

    def open(self) -> Compute:
        """Index the recordings of the further tables."""
        return partial(self._add, {name: _Recordings(table) for name, table in self.others.items()})

    def _add(self, indexes: "dict[str, _Recordings]", rows: pa.Table) -> Outcome:
        for name, recordings in indexes.items():
            rows = rows.append_column(self.schema.field(PREFIX + name), recordings.features(rows["recording_id"]))
        return Outcome(rows.select(self.schema.names), rejections([]))


class _Recordings:
    """Finds the features of recordings in a table. An index of a million recordings takes some 100 MB."""

    def __init__(self, table: FeaturesTable) -> None:
        self._table, self._parts = table, Parts(table.uri, table.version)
        batches = list(_names(table))
        rows = pa.Table.from_batches(batches)
        rows = rows.append_column("row", pa.array(np.arange(len(rows)))).sort_by(
            [("submission", "ascending"), ("row", "ascending")]
        )
        self._ids = rows["recording_id"].combine_chunks()
        self._rows = rows["row"].to_numpy()

    def features(self, recordings: pa.ChunkedArray) -> pa.Array:
        """A list of values for each recording; null for one that the table lacks."""
        # The first of equal ids is found: the first submission.
        place = pc.fill_null(pc.index_in(recordings, value_set=self._ids), ABSENT).to_numpy()
        positions = np.where(place == ABSENT, ABSENT, self._rows[place])
        values = read_positions(self._parts, positions, self._table.values)
        missing = positions == ABSENT
        offsets = np.concatenate([[0], np.cumsum(~missing)]) * self._table.values
        kind = FEATURES.field("features").type
        return pa.ListArray.from_arrays(
            pa.array(offsets, pa.int32()), pa.array(values[~missing].ravel()), type=kind, mask=pa.array(missing)
        )


def _names(table: FeaturesTable) -> Iterator[pa.RecordBatch]:
    return tables.read_batches(table.uri, ["recording_id", "submission"], version=table.version, batch_rows=65536)
