"""Ray Data datasets of documents and features tables, for your own programs.

Importing this module imports `ray.data`, which takes a second. The jobs use sources directly instead.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
import ray.data
from ray.data import Dataset, Datasource
from ray.data.block import BlockMetadata
from ray.data.datasource import ReadTask

from genre_ray.outcomes import Outcome
from genre_ray.runs.inventory import Inventory
from genre_ray.runs.plan import WorkItem
from genre_ray.runs.stages import Chunk, ShardSize
from genre_ray.sources.documents.source import FILES_PER_ITEM, DocumentSource
from genre_ray.sources.documents.table import DOCUMENTS
from genre_ray.sources.tables import TableRows
from genre_ray.storage import objects, tables

ToBlock = Callable[[Outcome], pa.Table]

_UNLIMITED = ShardSize(2**62, 2**62)


class RowSource(Protocol):
    """The part of `genre_ray.runs.stages.Source` that a read task needs."""

    name: str

    def read(self, item: WorkItem, size: ShardSize) -> Iterator[Chunk]:
        """Yield the rows of a work item."""
        ...


class SourceDatasource(Datasource):
    """A Ray Data source that reads work items with one task per item.

    Args:
        source: reads the items.
        items: the work items, in order.
        to_block: converts a chunk of the source to a block of the dataset.
    """

    def __init__(self, source: RowSource, items: Sequence[WorkItem], to_block: ToBlock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source, self.items, self.to_block = source, items, to_block

    def get_name(self) -> str:
        """Return the name that Ray's dashboard shows after `Read`."""
        return self.source.name.removeprefix("read ").capitalize()

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None, because the size of an archive's content is not known before it is read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one read task per work item, without reading anything."""
        return [
            ReadTask(
                partial(_blocks, self.source, item, self.to_block),
                BlockMetadata(
                    num_rows=None, size_bytes=None, input_files=tuple(file.uri for file in item.files), exec_stats=None
                ),
                per_task_row_limit=per_task_row_limit,
            )
            for item in self.items
        ]


def read_items(source: RowSource, items: Sequence[WorkItem], to_block: ToBlock) -> Dataset:
    """Make a dataset of the rows of work items, with one block per chunk of the source."""
    datasource = SourceDatasource(source, items, to_block)
    dataset: Dataset = ray.data.read_datasource(datasource, override_num_blocks=len(items))
    return dataset


def read_documents(*inputs: str) -> Dataset:
    """Make a dataset of the documents under `inputs`, before they are parsed, including rejected ones.

    The columns are `name`, `source_uri`, `recording_id`, `payload`, `reason` and `detail`. A row has either a name and
    a payload, or a reason and a detail if it was rejected. Inputs are listed when this function is called. They are
    read when the dataset is used, by one task per archive or group of files.

    >>> from ray.data.expressions import col
    >>> documents = read_documents("tests/data/emotify/documents.tar.zst")
    >>> documents.count()
    144
    >>> read = documents.filter(expr=col("reason").is_null())
    >>> read.map(lambda row: {"bytes": len(row["payload"])}).min("bytes") > 10_000
    True

    Args:
        inputs: folders, archives or files, local (on every node) or `s3://`.

    Raises:
        InputError: an input contains no documents.
    """
    # Absolute, because workers have other working directories.
    source = DocumentSource(tuple(map(objects.absolute, inputs)))
    with Inventory(source.list_inputs()) as files:
        items = list(source.make_work_items(files, rows_per_shard=FILES_PER_ITEM))
    return read_items(source, items, _documents_block)


def read_features(uri: str) -> Dataset:
    """Make a dataset of a features table, with the table's columns. One task reads each part.

    >>> rows = read_features("output/features")
    >>> rows.columns()[:3]
    ['recording_id', 'submission', 'artist_ids']
    >>> len(rows.take(1)[0]["features"])
    2669

    Args:
        uri: the features table.

    Raises:
        InputError: there is no table, or it has no rows.
    """
    # Absolute, because workers have other working directories.
    source = TableRows(objects.absolute(uri))
    items = source.make_work_items(source.list_inputs(), tables.ROW_GROUP_ROWS)
    return read_items(source, items, _accepted)


def _documents_block(outcome: Outcome) -> pa.Table:
    columns = pa.unify_schemas([DOCUMENTS, outcome.rejected.schema])
    return pa.concat_tables([outcome.accepted, outcome.rejected], promote_options="default").select(columns.names)


def _accepted(outcome: Outcome) -> pa.Table:
    return outcome.accepted


def _blocks(source: RowSource, item: WorkItem, to_block: ToBlock) -> Iterable[pa.Table]:
    return (to_block(chunk.outcome) for chunk in source.read(item, _UNLIMITED))
