"""A job as a chain: a source reads work items, stages compute tables from tables, a writer writes shards.

The rows of a work item fall into *shards*: consecutive rows, numbered from 0, of which each is committed as a whole. A
shard ends after `ShardSize.rows` rows, or before the row that would take it past `ShardSize.bytes`. So the boundaries
follow from the item's content alone, and every attempt at an item finds the same shards.
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
    """What one worker of a stage reserves.

    Attributes:
        cpus: CPU cores.
        gpus: GPUs; a fraction lets several workers share one.
        memory_mib: memory in MiB that the scheduler sets aside; 0 for none.
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
    """When a shard ends.

    Attributes:
        rows: rows of a shard; only an item's last shard, or one that ends by its bytes, has fewer.
        bytes: bytes of the rows as the source reads them; a single larger row is a shard of its own.
        piece_bytes: likewise, bytes that end a piece of a shard.
    """

    rows: int
    bytes: int = 2**29
    piece_bytes: int = 2**62


class ShardCounter:
    """Assigns the rows of an item to shards and pieces, one row after another.

    Attributes:
        shard: the shard of the row that was added last.
        piece: its piece of the shard, counted from 0.
    """

    def __init__(self, size: ShardSize) -> None:
        self.size = size
        self.shard = self.piece = 0
        self._rows = self._bytes = self._piece_bytes = 0

    def add(self, row_bytes: int) -> int:
        """Return the shard of the item's next row, which is `row_bytes` long as the source reads it."""
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
    """Consecutive rows of one piece as a source reads them: a few MiB, since several chunks are held at once."""

    shard: int
    outcome: Outcome
    piece: int = 0


class Source(Protocol):
    """Where rows come from. Picklable; reading an item again gives the same rows in the same order.

    Attributes:
        name: what it does, in a word or two, e.g. `read documents`.
        schema: the columns of the rows that it reads; `source_uri` and `recording_id` are among them.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def schema(self) -> pa.Schema: ...  # noqa: D102

    def list_inputs(self) -> Iterable[StoredFile]:
        """List the inputs as they are now, in any order."""
        ...

    def cut(self, files: Iterable[StoredFile], rows_per_shard: int) -> Iterable[WorkItem]:
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
        """Yield the rows of `item` from `first_shard` on, in order; rows before it are passed over.

        Args:
            item: what to read.
            size: when a shard ends.
            first_shard: the first shard that is wanted.
            failed: rows, by their position in the item, that cannot be read because reading them ended the process
                before. The row becomes a rejected row, unread; where what follows cannot be read without it, the item
                ends there.
            singly: yield chunks of one row, and read nothing before it is asked for.

        Raises:
            InputError: an input is gone, or is not the one that was planned.
            StorageError: the store does not answer, which says nothing about the rows.
        """
        ...


class Stage(Protocol):
    """What is done with rows: tables in, tables out. Picklable; a model is loaded by `open`, in the worker.

    Attributes:
        name: what it does, in a word or two, e.g. `parse`.
        schema: the columns of the rows that it accepts.
        resources: what a worker of it reserves; None for the job's default, one worker's CPUs.
        rows_per_call: how many rows it wants at once, as far as the shard has them; None for rows as they come.
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
        """Load what the stage needs; return the function that turns a table into an outcome with as many rows.

        The function is never called with an empty table.
        """
        ...


def open_stages(stages: Sequence[Stage]) -> list[Compute]:
    """Open every stage, in order; each returned function checks that no row is lost or made."""
    return [_checked(stage, stage.open()) for stage in stages]


def compute(opened: Sequence[Compute], rows: pa.Table) -> Outcome:
    """Take `rows` through all stages; the rejected rows of each stage are kept together."""
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
