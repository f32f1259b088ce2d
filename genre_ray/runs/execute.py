"""Carries a run out on Ray Data: work items go to a pool of workers, summaries come back, the driver commits them.

Rows never travel: a worker reads its item, computes and writes the parts itself. A worker that dies loses the shard it
was on; Ray gives its item to another, and the log refuses what was in already.
"""

import json
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext
from ray.exceptions import RayTaskError

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.plan import Plan, WorkItem
from genre_ray.storage import tables
from genre_ray.storage.schemas import REJECTED
from genre_ray.storage.tables import Part

logger = logging.getLogger(__name__)

COMMIT_EVERY_S, COMMIT_SHARDS, REPORT_EVERY_S = 5.0, 64, 60.0


class Chunk(Protocol):
    """Rows as a source reads them: all that a run needs to know of them is how many there are."""

    def __len__(self) -> int: ...


class Source(Protocol):
    """Where rows come from. Picklable; reading the same item again gives the same rows in the same order."""

    def read(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[tuple[int, Chunk]]:
        """Yield (shard, rows) from `first_shard` on; no chunk spans two shards."""
        ...


class Step(Protocol):
    """What is done with rows. Picklable; loads what it needs (a model) when it is first called, in the worker."""

    schema: pa.Schema

    def __call__(self, rows: Any) -> tuple[pa.Table, pa.Table]:
        """The rows that came out, in `schema`, and those rejected: `source_uri, recording_id, reason, detail`."""
        ...


def execute(ledger: Ledger, plans: Sequence[Plan], source: Source, step: Step, execution: Execution) -> int:
    """Do every shard that is not in yet; return how many this call made durable."""
    todo = [
        {"item": item.to_json(), "rows_per_shard": plan.rows_per_shard, "first_shard": done}
        for plan in plans
        for item in plan.items
        if (done := ledger.shards_done(item)) is not None
    ]
    if not todo:
        return 0
    pending: list[ShardSummary] = []
    committed, rows, started, committed_at, reported_at = (
        0,
        0,
        time.monotonic(),
        time.monotonic(),
        time.monotonic(),
    )
    for summary in _summaries(todo, ShardWorkerArguments(ledger, source, step), execution):
        pending.append(summary)
        rows += summary.rows_in
        now = time.monotonic()
        if len(pending) >= COMMIT_SHARDS or now - committed_at >= COMMIT_EVERY_S:
            committed += ledger.commit(pending)
            pending, committed_at = [], time.monotonic()
        if now - reported_at >= REPORT_EVERY_S:
            logger.info("%d rows in %d shards, %.0f rows/s", rows, committed + len(pending), rows / (now - started))
            reported_at = now
    return committed + ledger.commit(pending)


class ShardWorkerArguments:
    """What a worker is made of, small enough to travel by value."""

    def __init__(self, ledger: Ledger, source: Source, step: Step) -> None:
        self.data_uri, self.rejected_uri, self.source, self.step = (
            ledger.data_uri,
            ledger.rejected_uri,
            source,
            step,
        )


class ShardWorker:
    """Reads, computes and writes the shards of one work item after another."""

    def __init__(self, arguments: ShardWorkerArguments) -> None:
        self._arguments = arguments

    def __call__(self, batch: pa.Table) -> Iterator[dict[str, list[str]]]:
        for task in batch.to_pylist():
            item = WorkItem.from_json(task["item"])
            for summary in self.shards(item, task["rows_per_shard"], task["first_shard"]):
                yield {"summary": [json.dumps(asdict(summary))]}

    def shards(self, item: WorkItem, rows_per_shard: int, first_shard: int) -> Iterator[ShardSummary]:
        """Write the item's shards from `first_shard` on, one at a time, and tell of each once it is written."""
        shard = _OpenShard(item, first_shard)
        for index, rows in self._arguments.source.read(item, rows_per_shard, first_shard):
            if index != shard.index:
                yield shard.write(self._arguments, last=False)
                shard = _OpenShard(item, index)
            shard.add(*self._arguments.step(rows), rows_in=len(rows))
        yield shard.write(self._arguments, last=True)


class _OpenShard:
    """The rows of a shard that is not written yet."""

    def __init__(self, item: WorkItem, index: int) -> None:
        self.item, self.index, self.rows_in, self.started = item, index, 0, time.monotonic()
        self.accepted: list[pa.Table] = []
        self.rejected: list[pa.Table] = []

    def add(self, accepted: pa.Table, rejected: pa.Table, *, rows_in: int) -> None:
        if accepted.num_rows + rejected.num_rows != rows_in:
            raise AssertionError(f"{rows_in} rows in, {accepted.num_rows} out, {rejected.num_rows} rejected")
        self.accepted.append(accepted)
        self.rejected.append(rejected)
        self.rows_in += rows_in

    def write(self, arguments: ShardWorkerArguments, *, last: bool) -> ShardSummary:
        name = f"{self.item.name}-{self.index:05d}"
        parts = _write(arguments.data_uri, name, self.accepted)
        rejected = [_with_shard(table, f"{self.item.name}/{self.index}") for table in self.rejected if table.num_rows]
        reasons = {
            count["values"]: count["counts"]
            for count in (pa.concat_tables(rejected)["reason"].value_counts().to_pylist() if rejected else [])
        }
        rejected_parts = _write(arguments.rejected_uri, name, rejected)
        seconds = time.monotonic() - self.started
        return ShardSummary(self.item.name, self.index, last, self.rows_in, parts, rejected_parts, seconds, reasons)


def _write(uri: str, name: str, chunks: Sequence[pa.Table]) -> tuple[Part, ...]:
    chunks = [chunk for chunk in chunks if chunk.num_rows]
    return (tables.write_part(uri, name, pa.concat_tables(chunks)),) if chunks else ()


def _with_shard(rejected: pa.Table, shard: str) -> pa.Table:
    column = pa.array([shard] * rejected.num_rows, pa.string())
    return rejected.append_column("shard", column).select(REJECTED.names).cast(REJECTED)


def _summaries(
    todo: list[dict[str, Any]], arguments: ShardWorkerArguments, execution: Execution
) -> Iterator[ShardSummary]:
    context = DataContext.get_current().copy()
    # A block is handed on when it is full; summaries must not wait for their item's end.
    context.target_max_block_size = 1
    context.enable_progress_bars = sys.stderr.isatty()
    with DataContext.current(context):
        outcomes = ray.data.from_items(todo, override_num_blocks=len(todo)).map_batches(
            ShardWorker,
            fn_constructor_args=(arguments,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=_pool_size(len(todo), execution)),
            num_cpus=execution.cpus_per_worker,
            num_gpus=execution.gpus_per_worker or None,
        )
        try:
            for batch in outcomes.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for line in batch["summary"].to_pylist():
                    yield _summary(json.loads(line))
        except RayTaskError as error:
            cause = error.cause
            raise (cause if isinstance(cause, GenreRayError) else error) from None


def _summary(values: dict[str, Any]) -> ShardSummary:
    parts = {key: tuple(Part(**part) for part in values[key]) for key in ("parts", "rejected_parts")}
    return ShardSummary(**{**values, **parts})


def _pool_size(items: int, execution: Execution) -> int:
    resources = ray.cluster_resources()
    by_cpu = resources.get("CPU", 1) / execution.cpus_per_worker
    by_gpu = resources.get("GPU", 0) / execution.gpus_per_worker if execution.gpus_per_worker else by_cpu
    return max(1, min(items, execution.workers or int(min(by_cpu, by_gpu))))
