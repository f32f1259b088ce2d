"""Datasets of what the jobs read, for people who chain steps of their own with Ray Data.

Importing this module imports `ray.data`, which takes a second; the jobs read through their sources instead.
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
    """What a task reads by: the part of `genre_ray.runs.stages.Source` that it needs."""

    name: str

    def read(self, item: WorkItem, size: ShardSize) -> Iterator[Chunk]:
        """Yield the rows of a work item."""
        ...


class SourceDatasource(Datasource):
    """The rows of a source, read by one task per work item.

    Args:
        source: what reads the items.
        items: the work items, in order.
        to_block: makes a block of what the source yields at a time.
    """

    def __init__(self, source: RowSource, items: Sequence[WorkItem], to_block: ToBlock) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source, self.items, self.to_block = source, items, to_block

    def get_name(self) -> str:
        """Return what is read; Ray's dashboard shows it after `Read`."""
        return self.source.name.removeprefix("read ").capitalize()

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: how far an archive expands is not known before it is read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task per work item; nothing is read or listed here."""
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
    """The rows of work items as a dataset, in blocks as the source yields them."""
    datasource = SourceDatasource(source, items, to_block)
    dataset: Dataset = ray.data.read_datasource(datasource, override_num_blocks=len(items))
    return dataset


def read_documents(*inputs: str) -> Dataset:
    """The documents under `inputs` as they are stored, rejected ones included.

    The columns are `name`, `source_uri`, `recording_id`, `payload`, `reason` and `detail`. A row either has a name and
    a payload, or it was rejected at reading and has a reason and a detail. Inputs are listed here, and read by one task
    per archive or group of files when the dataset is consumed.

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
        InputError: an input has no documents.
    """
    # Workers have working directories of their own.
    source = DocumentSource(tuple(map(objects.absolute, inputs)))
    with Inventory(source.list_inputs()) as files:
        items = list(source.cut(files, rows_per_shard=FILES_PER_ITEM))
    return read_items(source, items, _documents_block)


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
    source = TableRows(objects.absolute(uri))
    items = source.cut(source.list_inputs(), tables.ROW_GROUP_ROWS)
    return read_items(source, items, _accepted)


def _documents_block(outcome: Outcome) -> pa.Table:
    columns = pa.unify_schemas([DOCUMENTS, outcome.rejected.schema])
    return pa.concat_tables([outcome.accepted, outcome.rejected], promote_options="default").select(columns.names)


def _accepted(outcome: Outcome) -> pa.Table:
    return outcome.accepted


def _blocks(source: RowSource, item: WorkItem, to_block: ToBlock) -> Iterable[pa.Table]:
    return (to_block(chunk.outcome) for chunk in source.read(item, _UNLIMITED))
