"""A Delta table as a source of rows: a features table or a predictions table, its parts as they are listed."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from genre_ray.errors import InputError
from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardSize
from genre_ray.storage import objects, tables
from genre_ray.storage.files import StoredFile


@dataclass(frozen=True)
class TableRows:
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
                items.append(WorkItem(f"t{number:06d}", "table", (file,), rows, is_counted=True))
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
