"""Carries a run out on Ray Data: work items go to a pool of workers, summaries come back, the driver commits them.

Rows never travel: a worker reads its item, computes and writes the parts itself. A worker that dies loses the shard it
was on; Ray gives its item to another, and the log refuses what was in already.
"""

import logging
import sys
import time
from collections.abc import Iterator, Sequence

import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from genre_ray.config import Execution
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.plan import Remainder
from genre_ray.runs.worker import ShardWorker, Source, Step, read_outcome

logger = logging.getLogger(__name__)

COMMIT_EVERY_S, COMMIT_SHARDS, REPORT_EVERY_S = 5.0, 64, 60.0


def execute(ledger: Ledger, remaining: Sequence[Remainder], source: Source, step: Step, execution: Execution) -> int:
    """Do what remains; return how many shards this call made durable.

    Raises:
        GenreRayError: a worker's. What was committed before it stays.
    """
    if not remaining:
        return 0
    pending: list[ShardSummary] = []
    durable = rows = 0
    started = committed_at = reported_at = time.monotonic()
    for summary in _summaries(ledger, remaining, source, step, execution):
        pending.append(summary)
        rows += summary.rows_in
        now = time.monotonic()
        if len(pending) >= COMMIT_SHARDS or now - committed_at >= COMMIT_EVERY_S:
            durable += ledger.commit(pending)
            pending, committed_at = [], time.monotonic()
        if now - reported_at >= REPORT_EVERY_S:
            logger.info("%d rows in %d shards, %.0f rows/s", rows, durable + len(pending), rows / (now - started))
            reported_at = now
    return durable + ledger.commit(pending)


def _summaries(
    ledger: Ledger, remaining: Sequence[Remainder], source: Source, step: Step, execution: Execution
) -> Iterator[ShardSummary]:
    context = DataContext.get_current().copy()
    # A block is handed on when it is full; summaries must not wait for their item's end.
    context.target_max_block_size = 1
    context.enable_progress_bars = sys.stderr.isatty()
    tasks = [
        {"item": left.item.to_json(), "rows_per_shard": left.rows_per_shard, "first_shard": left.first_shard}
        for left in remaining
    ]
    gpus = _gpus_per_worker(step, execution)
    with DataContext.current(context):
        outcomes = ray.data.from_items(tasks, override_num_blocks=len(tasks)).map_batches(
            ShardWorker,
            fn_constructor_args=(ledger.data_uri, ledger.rejected_uri, source, step),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=_pool_size(len(tasks), execution, gpus)),
            num_cpus=execution.cpus_per_worker,
            num_gpus=gpus or None,
        )
        for row in outcomes.iter_rows():
            yield read_outcome(row["outcome"])


def _gpus_per_worker(step: Step, execution: Execution) -> float:
    if execution.gpus_per_worker is not None:
        return execution.gpus_per_worker
    return 1.0 if step.gains_from_gpu and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def _pool_size(items: int, execution: Execution, gpus: float) -> int:
    resources = ray.cluster_resources()
    by_cpu = resources.get("CPU", 1) / execution.cpus_per_worker
    by_gpu = resources.get("GPU", 0) / gpus if gpus else by_cpu
    return max(1, min(items, execution.workers or int(min(by_cpu, by_gpu))))
