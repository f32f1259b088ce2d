"""The features table: how documents become its rows, and how its rows are read again."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from genre_ray.catalog.documents import Provenance
from genre_ray.errors import InputError
from genre_ray.features.columns import FEATURE_COLUMNS
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, Compute, Resources, ShardSize
from genre_ray.storage import objects, tables
from genre_ray.storage.objects import StoredFile
from genre_ray.storage.schemas import FEATURES

Vectors = np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class ParseDocuments:
    """A stage: documents as they are stored → rows of the features table.

    Attributes:
        resources: what a worker of it reserves.
    """

    name = "parse"
    schema = FEATURES
    rows_per_call: int | None = None
    resources: Resources | None = None

    def open(self) -> Compute:
        """Load the compiled parser."""
        # Here, not above: who only reads a table has no use for the compiler.
        from genre_ray.features.vectors import warm_up

        warm_up()
        return parse_documents


def parse_documents(documents: pa.Table) -> Outcome:
    """Rows of the features table for documents with the columns of `genre_ray.catalog.sources.DOCUMENTS`."""
    # Batch by batch: to combine batches would copy the payloads.
    outcomes = [_parse(batch) for batch in documents.to_batches() if batch.num_rows]
    if not outcomes:
        return Outcome(ParseDocuments.schema.empty_table(), rejections([]))
    return Outcome(
        pa.Table.from_batches([rows for rows, _ in outcomes]), pa.concat_tables([rejected for _, rejected in outcomes])
    )


def _parse(documents: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Table]:
    from genre_ray.features.vectors import read_vectors

    vectors = np.empty((documents.num_rows, len(FEATURE_COLUMNS)), np.float32)
    read = read_vectors(documents.column("name").to_pylist(), documents.column("payload"), vectors)
    uris = documents.column("source_uri").to_pylist()
    accepted = [(uri, about) for uri, about in zip(uris, read, strict=True) if not isinstance(about, Rejection)]
    rejected = [(uri, why) for uri, why in zip(uris, read, strict=True) if isinstance(why, Rejection)]
    if rejected:
        vectors = vectors[[not isinstance(about, Rejection) for about in read]]
    return _rows(accepted, vectors), rejections(rejected)


def _rows(accepted: Sequence[tuple[str, Provenance]], vectors: Vectors) -> pa.RecordBatch:
    values = [
        [about.recording_id for _, about in accepted],
        [about.submission for _, about in accepted],
        [about.artist_ids for _, about in accepted],
        [about.release_group_id for _, about in accepted],
        [uri for uri, _ in accepted],
        [about.extractor for _, about in accepted],
    ]
    columns = [pa.array(column, kind) for column, kind in zip(values, FEATURES.types[:-1], strict=True)]
    ends = pa.array(np.arange(len(vectors) + 1) * vectors.shape[1], pa.int32())
    kind = FEATURES.field("features").type
    columns.append(pa.ListArray.from_arrays(ends, pa.array(vectors.reshape(-1)), type=kind))
    return pa.RecordBatch.from_arrays(columns, schema=FEATURES)


@dataclass(frozen=True)
class FeatureRows:
    """A features table, or a predictions table, as a source of rows: its parts at one version.

    Attributes:
        uri: the table.
        limit: take only so many rows, in the order of the parts.
        columns: what is read of a row; everything when not given.
    """

    name = "read features"

    uri: str
    version: int | None = None
    limit: int | None = None
    columns: tuple[str, ...] | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns that are read, with the table's types.

        Raises:
            InputError: there is no table, or it lacks a column.
        """
        found = tables.schema_of(tables.open_table(self.uri, self.version))
        if self.columns is None:
            return found
        if missing := sorted({*self.columns} - {*found.names}):
            raise InputError(f"{self.uri}: expected a table with {', '.join(missing)}, found {', '.join(found.names)}")
        return pa.schema([field for field in found if field.name in self.columns])

    @cached_property
    def _parts(self) -> list[tables.Part]:
        """Listed once: what is planned is of one version."""
        return tables.list_parts(self.uri, self.version)

    def list_inputs(self) -> list[StoredFile]:
        """The table's parts. Parts never change, so their path is their version.

        Raises:
            InputError: there is no table, or it has no rows.
            StorageError: its first part cannot be read.
        """
        parts = self._parts
        if not parts:
            raise InputError(f"{self.uri}: expected a table with rows, found an empty one; ingest documents into it")
        # A damaged table is refused before a run claims its output, as far as one part shows the damage.
        with tables.open_part(objects.join(self.uri, parts[0].path)):
            pass
        return [StoredFile(objects.join(self.uri, part.path), part.path, part.size, part.path) for part in parts]

    def cut(self, files: Iterable[StoredFile], rows_per_shard: int) -> list[WorkItem]:
        """One work item a part, with the number of rows that are taken from it."""
        held = {part.path: part.rows for part in self._parts}
        items: list[WorkItem] = []
        left = sum(held.values()) if self.limit is None else self.limit
        for number, file in enumerate(files):
            rows = min(held[file.name], left)
            left -= rows
            if rows:
                items.append(WorkItem(f"t{number:06d}", "table", (file,), rows))
        return items

    def read(
        self,
        item: WorkItem,
        size: ShardSize,
        first_shard: int = 0,
        failed: Mapping[int, Rejection] | None = None,
        *,
        singly: bool = False,
    ) -> Iterator[Chunk]:
        """Yield up to a row group at a time; see `genre_ray.runs.stages.Source`.

        Rows count as 0 bytes: a table's parts are of a known size, and shards and pieces end by their rows alone.
        """
        (part,) = item.files
        if failed:
            # Parts are our own: what cannot be read is damage, and the rows after it would be lost with it.
            why = failed[min(failed)]
            raise InputError(
                f"{part.uri}: {why.detail}, at row {min(failed)}. The part is damaged, or its storage hangs: check it "
                "with verify, then --resume"
            )
        position = first = first_shard * size.rows
        for begin, rows in self._batches(part.uri, first, item.rows):
            position = begin + rows.num_rows
            for start, stop in _cuts(max(first, begin), position, 1 if singly else size.rows):
                yield Chunk(start // size.rows, Outcome(rows.slice(start - begin, stop - start), rejections([])))
        if position <= first and first_shard > 0:
            raise InputError(
                f"{part.uri}: it ends before shard {first_shard}, although earlier runs read further; restore the "
                "table, then --resume; or start a new run with another --output"
            )

    def _batches(self, uri: str, first: int, end: int | None) -> Iterator[tuple[int, pa.Table]]:
        """Yield the position of some rows and the rows, from the row group of row `first` on, until row `end`."""
        if end is not None and end <= first:
            return
        with tables.open_part(uri) as file:
            groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            position = skipped = 0
            while skipped < len(groups) and position + groups[skipped] <= first:
                position += groups[skipped]
                skipped += 1
            batches = file.iter_batches(
                tables.ROW_GROUP_ROWS,
                row_groups=range(skipped, len(groups)),
                columns=self.columns,
                # One column is nearly all of a row: threads would have nothing to share, and workers no cores to spare.
                use_threads=False,
            )
            while end is None or position < end:
                if (batch := next(batches, None)) is None:
                    return
                batch = tables.as_table_types(batch, self.schema)
                rows = pa.Table.from_batches([batch if end is None else batch.slice(0, end - position)])
                yield position, rows
                position += rows.num_rows


def _cuts(start: int, stop: int, every: int) -> Iterator[tuple[int, int]]:
    """The ranges from `start` to `stop` that end at every multiple of `every`."""
    while start < stop:
        end = min(stop, (start // every + 1) * every)
        yield start, end
        start = end
