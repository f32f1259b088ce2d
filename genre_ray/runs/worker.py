"""What a run does on a worker: read a work item, compute, and write the parts of one shard after another.

What comes next is read meanwhile (`genre_ray.runs.ahead`) where that gains, but not where a worker died before.
A shard over which a worker died (`genre_ray.runs.attempts`) is computed in a child (`genre_ray.runs.isolation`).
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any, Protocol

import pyarrow as pa

from genre_ray import errors
from genre_ray.errors import GenreRayError
from genre_ray.runs.ahead import read_ahead
from genre_ray.runs.attempts import Attempts
from genre_ray.runs.isolation import Isolation, Limits, watchdog
from genre_ray.runs.ledger import ShardSummary
from genre_ray.runs.plan import Remainder, WorkItem
from genre_ray.storage import objects, tables
from genre_ray.storage.schemas import REJECTED
from genre_ray.storage.tables import Part

logger = logging.getLogger(__name__)

Compute = Callable[[Any], tuple[pa.Table, pa.Table]]


class Chunk(Protocol):
    """Rows as a source reads them: a list, or Arrow's; a few MiB of them, since several chunks are held at once.

    A row that kills its worker is rejected with its `uri` and `recording_id` (columns `source_uri` and `recording_id`
    in Arrow), and with itself as the address where it has none.
    """

    def __len__(self) -> int: ...


class Source(Protocol):
    """Where rows come from. Picklable; reading the same item again gives the same rows in the same order."""

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, Chunk]]:
        """Yield (shard, rows) from `first_shard` on; no chunk spans two shards, and no shard but the last is short."""
        ...


class Step(Protocol):
    """What is done with rows. Picklable; loads what it needs (a model) when it is first called, in the worker."""

    schema: pa.Schema
    gains_from_gpu: bool

    def __call__(self, rows: Any) -> tuple[pa.Table, pa.Table]:
        """The rows that came out, in `schema`, and those rejected: `source_uri, recording_id, reason, detail`."""
        ...


class ShardWorker:
    """Reads, computes and writes the shards of one work item after another.

    Args:
        data_uri: the data table.
        rejected_uri: the rejected table.
        source: where rows come from.
        step: what is done with them.
        limits: what one row may take.
        attempts_uri: the folder for marks of attempts; without one, an attempt knows nothing of those before it.
        has_spare_core: whether a thread that reads would not take the time of the one that computes.
    """

    def __init__(
        self,
        data_uri: str,
        rejected_uri: str,
        source: Source,
        step: Step,
        *,
        limits: Limits | None = None,
        attempts_uri: str | None = None,
        has_spare_core: bool = True,
    ) -> None:
        self.has_spare_core = has_spare_core
        self.data_uri, self.rejected_uri, self.source, self.step = data_uri, rejected_uri, source, step
        self.limits = limits or Limits()
        self.attempts = Attempts(attempts_uri) if attempts_uri else None

    def outcomes(self, task: dict[str, Any]) -> Iterator[str]:
        """Do what a `Remainder` names; tell of every shard (see `read_outcome`)."""
        left = Remainder(**task)
        try:
            for summary in self.shards(left.read_item(), left.rows_per_shard, left.first_shard):
                yield json.dumps(asdict(summary))
        except GenreRayError as error:
            # As a value: Ray adds advice on its own settings to a message, and a traceback to the log.
            yield tell_error(error)

    def shards(self, item: WorkItem, rows_per_shard: int, first_shard: int = 0) -> Iterator[ShardSummary]:
        """Write the item's shards from `first_shard` on, one at a time, and tell of each once it is written."""
        with ExitStack() as stack:
            chunks = self.source.read(item, rows_per_shard, first_shard)
            if self._reads_ahead(item, first_shard):
                chunks = stack.enter_context(read_ahead(chunks))
            yield from self._shards(item, first_shard, chunks)

    def _reads_ahead(self, item: WorkItem, first_shard: int) -> bool:
        # What kills in reading must not do so ahead: the shards before it would never be done.
        if self.attempts and self.attempts.deaths(item.name, first_shard):
            return False
        # Where reading waits for no store and has no core to run on, it would only take turns with the step.
        return self.has_spare_core or any(objects.is_remote(file.uri) for file in item.files)

    def _shards(self, item: WorkItem, index: int, chunks: Iterator[tuple[int, Chunk]]) -> Iterator[ShardSummary]:
        rows: Chunk | None = None
        while True:
            # The attempt begins before its first rows are read: reading may be what kills.
            shard = _OpenShard(item, index)
            with self._attempt(item, index) as compute:
                if rows is not None:
                    shard.add(*compute(rows), rows_in=len(rows))
                for index, rows in chunks:
                    if index != shard.index:
                        break
                    shard.add(*compute(rows), rows_in=len(rows))
                else:
                    rows = None
                summary = self._write(shard, last=rows is None)
            yield summary
            if rows is None:
                return

    @contextmanager
    def _attempt(self, item: WorkItem, index: int) -> Iterator[Compute]:
        """What computes a shard's rows: the step itself, or a child where an attempt before this one died."""
        with ExitStack() as stack:
            died = stack.enter_context(self.attempts.attempt(item.name, index)) if self.attempts else 0
            if died:
                logger.warning("%s/%d: a worker died over this shard, its rows go through a child", item.name, index)
                yield stack.enter_context(Isolation(self.step, self.limits))
            else:
                yield self._watched

    def _watched(self, rows: Any) -> tuple[pa.Table, pa.Table]:
        with watchdog(self.limits):
            return self.step(rows)

    def _write(self, shard: "_OpenShard", *, last: bool) -> ShardSummary:
        item, index = shard.item.name, shard.index
        name = f"{item}-{index:05d}"
        rejected = [_with_shard(rows, f"{item}/{index}") for rows in shard.rejected]
        parts, rejected_parts = _part(self.data_uri, name, shard.accepted), _part(self.rejected_uri, name, rejected)
        return ShardSummary(item, index, last, shard.rows_in, parts, rejected_parts)


def tell_error(error: GenreRayError) -> str:
    """The outcome of an item that cannot be gone on with; `read_outcome` raises it."""
    return json.dumps({"error": type(error).__name__, "message": str(error)})


def read_outcome(line: str) -> ShardSummary:
    """What a worker told of a shard.

    Raises:
        GenreRayError: the one that ended the work on the shard's item.
    """
    values: dict[str, Any] = json.loads(line)
    if "error" in values:
        raise getattr(errors, values["error"], GenreRayError)(values["message"])
    parts = {key: tuple(Part(**part) for part in values[key]) for key in ("parts", "rejected_parts")}
    return ShardSummary(**{**values, **parts})


class _OpenShard:
    """The rows of a shard that is not written yet."""

    def __init__(self, item: WorkItem, index: int) -> None:
        self.item, self.index, self.rows_in = item, index, 0
        self.accepted: list[pa.Table] = []
        self.rejected: list[pa.Table] = []

    def add(self, accepted: pa.Table, rejected: pa.Table, *, rows_in: int) -> None:
        if accepted.num_rows + rejected.num_rows != rows_in:
            raise AssertionError(f"{rows_in} rows in, {accepted.num_rows} out, {rejected.num_rows} rejected")
        self.accepted.append(accepted)
        self.rejected.append(rejected)
        self.rows_in += rows_in


def _part(uri: str, name: str, chunks: Sequence[pa.Table]) -> tuple[Part, ...]:
    rows = pa.concat_tables(chunks) if chunks else None
    return (tables.write_part(uri, name, rows),) if rows is not None and rows.num_rows else ()


def _with_shard(rejected: pa.Table, shard: str) -> pa.Table:
    column = pa.array([shard] * rejected.num_rows, pa.string())
    return rejected.append_column("shard", column).select(REJECTED.names).cast(REJECTED)
