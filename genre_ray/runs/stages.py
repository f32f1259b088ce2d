"""The interfaces of a job's chain: a source reads work items, stages process tables, and a writer writes shards.

The rows of a work item form *shards* of consecutive rows, numbered from 0. A shard is committed as a whole. It ends
after `ShardSize.rows` rows, or before the row with which it would exceed `ShardSize.bytes`. So the boundaries follow
from the content of the item, and every attempt finds the same shards.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import pyarrow as pa

from genre_ray.outcomes import Outcome, Rejection, rejections
from genre_ray.runs.plan import WorkItem
from genre_ray.storage.files import StoredFile

Compute = Callable[[pa.Table], Outcome]


@dataclass(frozen=True)
class Resources:
    """The resources that one worker of a stage reserves.

    Attributes:
        cpus: number of CPU cores.
        gpus: number of GPUs; with a fraction, several workers share a GPU.
        memory_mib: memory in MiB; 0 to reserve no memory.
    """

    cpus: float = 1.0
    gpus: float = 0.0
    memory_mib: int = 0

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPU"]
        parts += [f"{self.gpus:g} GPU"] if self.gpus else []
        parts += [f"{self.memory_mib} MiB"] if self.memory_mib else []
        return ", ".join(parts)


@dataclass(frozen=True)
class ShardSize:
    """The maximum sizes of a shard and of a piece.

    Attributes:
        rows: maximum number of rows of a shard.
        bytes: maximum bytes of a shard's rows, as the source reads them. A single larger row forms its own shard.
        piece_bytes: a piece ends when its rows reach this many bytes.
    """

    rows: int
    bytes: int = 2**29
    piece_bytes: int = 2**62


class ShardCounter:
    """Assigns the rows of an item to shards and pieces, in order.

    Attributes:
        shard: the shard of the last row.
        piece: the piece of the last row in its shard, from 0.
    """

    def __init__(self, size: ShardSize) -> None:
        self.size = size
        self.shard = self.piece = 0
        self._rows = self._bytes = self._piece_bytes = 0

    def add(self, row_bytes: int) -> int:
        """Add the next row, which has `row_bytes` bytes, and return its shard."""
        if self._rows == self.size.rows or (self._rows and self._bytes + row_bytes > self.size.bytes):
            self.shard, self.piece = self.shard + 1, 0
            self._rows = self._bytes = self._piece_bytes = 0
        elif self._piece_bytes >= self.size.piece_bytes:
            self.piece, self._piece_bytes = self.piece + 1, 0
        self._rows += 1
        self._bytes += row_bytes
        self._piece_bytes += row_bytes
        return self.shard


class Chunk(NamedTuple):
    """Consecutive rows of one piece, as a source reads them: a few MiB, because several are in memory at a time."""

    shard: int
    outcome: Outcome
    piece: int = 0


class Source(Protocol):
    """A source of rows. It can be pickled, and reading an item again gives the same rows in the same order.

    Attributes:
        name: what it does, in a word or two, e.g. `read documents`.
        schema: the schema of its rows, which contains `source_uri` and `recording_id`.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102

    def list_inputs(self) -> Iterable[StoredFile]:
        """List the current inputs, in any order."""
        ...

    def make_work_items(self, files: Iterable[StoredFile], rows_per_shard: int) -> Iterable[WorkItem]:
        """Make work items of `files`, which come sorted by address and may be more than memory holds."""
        ...

    def read(
        self,
        item: WorkItem,
        size: ShardSize,
        first_shard: int = 0,
        failed: Mapping[int, Rejection] | None = None,
        *,
        singly: bool = False,
    ) -> Iterator[Chunk]:
        """Yield the rows of `item` from `first_shard` on, in order. Earlier rows are skipped.

        Args:
            item: the item to read.
            size: the sizes of shards and pieces.
            first_shard: the first shard to yield.
            failed: rows that crash the process when they are read, by their position in the item. Such a row is
                rejected without reading it. If later rows cannot be read without it, the item ends there.
            singly: yield chunks of one row, and read each row only when it is requested.

        Raises:
            InputError: an input was removed or changed.
            StorageError: the store does not respond, which says nothing about the rows.
        """
        ...


class Stage(Protocol):
    """A step that converts tables to tables. It can be pickled; `open` loads what it needs in the worker.

    Attributes:
        name: what it does, in a word or two, e.g. `parse`.
        schema: the schema of its accepted rows.
        resources: the resources that a worker reserves; None for the job's default, which is the CPUs of one worker.
        rows_per_call: the number of rows per call, if the shard has as many; None for any number.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102
    @property
    def resources(self) -> Resources | None: ...  # noqa: D102
    @property
    def rows_per_call(self) -> int | None: ...  # noqa: D102

    def open(self) -> Compute:
        """Load what the stage needs, and return the function that processes a table.

        The function returns an outcome with as many rows as the table. It is never called with an empty table.
        """
        ...


def open_stages(stages: Sequence[Stage]) -> list[Compute]:
    """Open all stages in order. Each returned function checks that the number of rows stays the same."""
    return [_checked(stage, stage.open()) for stage in stages]


def compute(opened: Sequence[Compute], rows: pa.Table) -> Outcome:
    """Pass rows through all stages, and collect the rejected rows of all of them."""
    rejected = [rejections([])]
    for stage in opened:
        rows, more = stage(rows)
        rejected.append(more)
    return Outcome(rows, pa.concat_tables(rejected))


def _checked(stage: Stage, opened: Compute) -> Compute:
    def call(rows: pa.Table) -> Outcome:
        if not rows.num_rows:
            return Outcome(stage.schema.empty_table(), rejections([]))
        outcome = opened(rows)
        if outcome.num_rows != rows.num_rows:
            raise AssertionError(
                f"{stage.name}: {rows.num_rows} rows in, {outcome.accepted.num_rows} out, "
                f"{outcome.rejected.num_rows} rejected"
            )
        return outcome

    return call
