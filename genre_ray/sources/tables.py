"""The source of table rows: reads a features table or a predictions table."""

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
    """The rows of a Delta table at one version.

    Attributes:
        uri: the table.
        version: the version; the newest if None.
        limit: maximum number of rows, in the order of the parts.
        columns: the columns to read; all if None.
    """

    name = "read features"

    uri: str
    version: int | None = None
    limit: int | None = None
    columns: tuple[str, ...] | None = None

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns to read, with the table's types.

        Raises:
            InputError: there is no table, or it lacks a column.
        """
        found = tables.schema_of(tables.open_table(self.uri, self.version))
        if self.columns is None:
            return found
        if missing := sorted({*self.columns} - {*found.names}):
            raise InputError(
                f"{self.uri}: the table lacks the columns {', '.join(missing)} (it has {', '.join(found.names)}); give "
                "a table that genre_ray wrote for this purpose"
            )
        return pa.schema([field for field in found if field.name in self.columns])

    @cached_property
    def _parts(self) -> list[tables.Part]:
        """The parts, listed once so that they all belong to one version."""
        return tables.list_parts(self.uri, self.version)

    def list_inputs(self) -> list[StoredFile]:
        """List the parts of the table. Parts never change, so the version of a part is its path.

        Raises:
            InputError: there is no table, or it has no rows.
            StorageError: its first part cannot be read.
        """
        parts = self._parts
        if not parts:
            raise InputError(f"{self.uri}: the table is empty; ingest documents into it first")
        # Opening one part detects some damaged tables before a run claims its output.
        with tables.open_part(objects.join(self.uri, parts[0].path)):
            pass
        return [StoredFile(objects.join(self.uri, part.path), part.path, part.size, part.path) for part in parts]

    def make_work_items(self, files: Iterable[StoredFile], rows_per_shard: int) -> list[WorkItem]:
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
        """Yield at most a row group per chunk; see `genre_ray.runs.stages.Source`.

        Rows count as 0 bytes, so shards end only by their number of rows.
        """
        (part,) = item.files
        if failed:
            # genre_ray wrote the part, so a row that cannot be read means damage. Rejecting it would lose later rows.
            why = failed[min(failed)]
            raise InputError(
                f"{part.uri}: {why.detail}, at row {min(failed)}. The part is damaged, or its storage does not "
                "respond: check it with verify, then run again with --resume"
            )
        position = first = first_shard * size.rows
        for begin, rows in self._batches(part.uri, first, item.rows):
            position = begin + rows.num_rows
            for start, stop in _cuts(max(first, begin), position, 1 if singly else size.rows):
                yield Chunk(start // size.rows, Outcome(rows.slice(start - begin, stop - start), rejections([])))
        if position <= first and first_shard > 0:
            raise InputError(
                f"{part.uri}: this part ends before shard {first_shard}, but it was longer when the run started. "
                "Restore the table and run again with --resume, or start a new run with another --output"
            )

    def _batches(self, uri: str, first: int, end: int | None) -> Iterator[tuple[int, pa.Table]]:
        """Yield tables of rows with the position of their first row, from the row group of row `first` to row `end`."""
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
                # One column is most of a row, so threads could not share the work.
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
    """Yield the ranges from `start` to `stop`, split at every multiple of `every`."""
    while start < stop:
        end = min(stop, (start // every + 1) * every)
        yield start, end
        start = end
