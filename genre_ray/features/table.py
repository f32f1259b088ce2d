"""The features table: how documents become its rows, and how its rows are read again."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from genre_ray.catalog.archives import RawDocument
from genre_ray.catalog.documents import Provenance
from genre_ray.errors import InputError
from genre_ray.features.columns import FEATURE_COLUMNS
from genre_ray.outcomes import Rejection, rejections
from genre_ray.runs.plan import WorkItem
from genre_ray.storage import objects, tables
from genre_ray.storage.objects import StoredFile
from genre_ray.storage.schemas import features_schema

if TYPE_CHECKING:
    from ray.data import Dataset

Vectors = np.ndarray[Any, np.dtype[np.float32]]


class FeaturesStep:
    """Raw documents → rows of the features table, and the documents that were rejected."""

    schema = features_schema(FEATURE_COLUMNS)
    gains_from_gpu = False

    def __call__(self, rows: Sequence[RawDocument]) -> tuple[pa.Table, pa.Table]:
        """See `genre_ray.runs.worker.Step`."""
        # Here, not above: who only reads a table has no use for the compiler.
        from genre_ray.features.vectors import read_vectors

        stored = [(raw.name, raw.payload) for raw in rows if not isinstance(raw.payload, Rejection)]
        vectors = np.empty((len(stored), len(FEATURE_COLUMNS)), np.float32)
        read = read_vectors(stored, vectors)
        in_order = iter(read)
        outcomes = [(raw, raw.payload if isinstance(raw.payload, Rejection) else next(in_order)) for raw in rows]
        accepted = [(raw, about) for raw, about in outcomes if not isinstance(about, Rejection)]
        rejected = [(raw.uri, why) for raw, why in outcomes if isinstance(why, Rejection)]
        if len(accepted) < len(read):
            vectors = vectors[[not isinstance(about, Rejection) for about in read]]
        return self._table(accepted, vectors), rejections(rejected)

    def _table(self, accepted: Sequence[tuple[RawDocument, Provenance]], vectors: Vectors) -> pa.Table:
        values = [
            [about.recording_id for _, about in accepted],
            [about.submission for _, about in accepted],
            [about.artist_ids for _, about in accepted],
            [about.release_group_id for _, about in accepted],
            [raw.uri for raw, _ in accepted],
            [about.extractor for _, about in accepted],
        ]
        columns = [pa.array(column, kind) for column, kind in zip(values, self.schema.types[:-1], strict=True)]
        kind = self.schema.field("features").type
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind))
        return pa.Table.from_arrays(columns, schema=self.schema)


@dataclass(frozen=True)
class FeatureRows:
    """A features table as a source of rows: its parts at one version.

    Attributes:
        uri: the table.
        limit: take only so many rows, in the order of the parts.
        columns: what is read of a row; everything when not given.
    """

    uri: str
    version: int | None = None
    limit: int | None = None
    columns: tuple[str, ...] | None = None

    def list_inputs(self) -> list[StoredFile]:
        """The table's parts. Parts never change, so their path is their version.

        Raises:
            InputError: there is no table, or it has no rows.
        """
        parts = tables.list_parts(self.uri, self.version)
        if not parts:
            raise InputError(f"{self.uri}: expected a table with rows, found an empty one; ingest documents into it")
        return [StoredFile(objects.join(self.uri, part.path), part.path, part.size, part.path) for part in parts]

    def cut(self, files: Sequence[StoredFile], rows_per_shard: int) -> list[WorkItem]:
        """One work item a part, with the number of rows that are taken from it."""
        held = {part.path: part.rows for part in tables.list_parts(self.uri, self.version)}
        items: list[WorkItem] = []
        left = sum(held.values()) if self.limit is None else self.limit
        for number, file in enumerate(files):
            rows = min(held[file.name], left)
            left -= rows
            if rows:
                items.append(WorkItem(f"t{number:06d}", "table", (file,), rows))
        return items

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Yield (shard, rows) from `first_shard` on."""
        (part,) = item.files
        position, first = 0, first_shard * rows_per_shard
        with tables.open_part(part.uri) as file:
            # One column is nearly all of a row: threads would have nothing to share, and workers no cores to spare.
            for batch in file.iter_batches(tables.ROW_GROUP_ROWS, columns=self.columns, use_threads=False):
                batch = batch.slice(0, None if item.rows is None else max(0, item.rows - position))
                for start in _cuts(position, position + batch.num_rows, rows_per_shard):
                    shard = start // rows_per_shard
                    rows = batch.slice(start - position, (shard + 1) * rows_per_shard - start)
                    if start >= first and rows.num_rows:
                        yield shard, rows
                position += batch.num_rows


def table_columns(uri: str) -> tuple[str, ...]:
    """The names of a features table's columns.

    Raises:
        InputError: it is not a features table.
    """
    columns = tables.part_metadata(uri).get("columns")
    if columns is None:
        raise InputError(f"{uri}: expected a features table with genre_ray.columns in its parts, found another table")
    return tuple(json.loads(columns))


def read_features(uri: str) -> "Dataset":
    """The features table as a dataset of Arrow blocks, for people who chain steps of their own."""
    import ray.data

    source = FeatureRows(uri)
    items = [{"item": item.to_json()} for item in source.cut(source.list_inputs(), tables.ROW_GROUP_ROWS)]

    def batches(batch: pa.Table) -> Iterator[pa.Table]:
        for item in batch["item"].to_pylist():
            for _, rows in source.read(WorkItem.from_json(item), tables.ROW_GROUP_ROWS, 0):
                yield pa.Table.from_batches([rows])

    return ray.data.from_items(items).map_batches(batches, batch_size=1, batch_format="pyarrow")


def _cuts(start: int, stop: int, every: int) -> Iterator[int]:
    """`start`, then every multiple of `every` before `stop`."""
    while start < stop:
        yield start
        start = (start // every + 1) * every
