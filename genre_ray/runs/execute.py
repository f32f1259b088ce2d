"""Carries a run out: work items go to a pool of workers on Ray, summaries come back, the driver commits them.

Rows never travel: a worker reads its item, computes and writes the parts itself. A worker that dies loses what it had
not told yet and what was not committed; Ray starts it again, and it goes on behind the shards that are in. Ray does so
without end: what ends it is `genre_ray.runs.attempts`.
"""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import ray

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
from genre_ray.runs import pool
from genre_ray.runs.allocation import keep_freed_memory
from genre_ray.runs.isolation import Limits
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.plan import Remainder
from genre_ray.runs.worker import ShardWorker, Source, Step, read_outcome, tell_error
from genre_ray.storage import objects

logger = logging.getLogger(__name__)

COMMIT_EVERY_S, COMMIT_SHARDS = 5.0, 64
REPORT_EVERY_S, SHOW_EVERY_S = 60.0, 5.0
"""Between two lines on the progress, in a log and on a terminal."""
SHARD_IS_IN = "in"


def execute(ledger: Ledger, remaining: Sequence[Remainder], source: Source, step: Step, execution: Execution) -> int:
    """Do what remains; return how many shards this call made durable.

    Raises:
        GenreRayError: a worker's, or that workers ended before their items did. What was committed before it stays.
    """
    if not remaining:
        return 0
    durable = make_durable(ledger, remaining, _summaries(ledger, remaining, source, step, execution))
    # All is in: the marks of attempts tell nobody anything any more.
    objects.delete_folder(_attempts_uri(ledger.output))
    return durable


def make_durable(ledger: Ledger, remaining: Sequence[Remainder], summaries: Iterable[ShardSummary]) -> int:
    """Commit summaries as they come; return how many shards were not in yet.

    Raises:
        GenreRayError: an item of `remaining` is not complete although no more summaries come.
    """
    pending: list[ShardSummary] = []
    durable = rows = 0
    report_every_s = SHOW_EVERY_S if sys.stderr.isatty() else REPORT_EVERY_S
    started = committed_at = reported_at = time.monotonic()
    for summary in summaries:
        pending.append(summary)
        rows += summary.rows_in
        now = time.monotonic()
        if len(pending) >= COMMIT_SHARDS or now - committed_at >= COMMIT_EVERY_S:
            durable += ledger.commit(pending)
            pending, committed_at = [], time.monotonic()
        if now - reported_at >= report_every_s:
            logger.info("%d rows in %d shards, %.0f rows/s", rows, durable + len(pending), rows / (now - started))
            reported_at = now
    durable += ledger.commit(pending)
    # A repeated task that fails before where it was repeated from ends without a word.
    short = [left.item for left in remaining if ledger.shards_done(left.item) is not None]
    if short:
        raise GenreRayError(
            f"{ledger.output}: expected all shards of {len(remaining)} work items, found {len(short)} items not "
            f"complete, the first is {short[0]}; --resume does what is missing"
        )
    return durable


class ResumingWorker:
    """A `ShardWorker` on Ray, which runs a task again from its start when its worker died.

    Ray knows what a repeated task yields from what it yielded before by nothing but its place. So a repetition yields
    a row for every shard that is in, an empty one, and goes on behind them.

    Args:
        ledger: the arguments of `Ledger`: where the run is recorded.
        source: where rows come from.
        step: what is done with them.
        was_restarted: whether this process took over from one that died.
        has_spare_core: see `ShardWorker`.
        limits: what one row may take where a worker died; without them no attempt knows of those before it.
    """

    def __init__(
        self,
        ledger: tuple[str, str, pa.Schema, str],
        source: Source,
        step: Step,
        was_restarted: Callable[[], bool] | None = None,
        limits: Limits | None = None,
        *,
        has_spare_core: bool = True,
    ) -> None:
        keep_freed_memory()
        output, name, *_ = self.ledger = ledger
        self.worker = ShardWorker(
            objects.join(output, name),
            objects.join(output, "rejected"),
            source,
            step,
            limits=limits,
            attempts_uri=_attempts_uri(output) if limits else None,
            has_spare_core=has_spare_core,
        )
        self.restarted = (was_restarted or _was_restarted)()

    def outcomes(self, task: dict[str, Any]) -> Iterator[str]:
        """Tell of every shard of a work item from `task["first_shard"]` on; see `read_summaries`."""
        try:
            shards_in, complete = self._shards_in(task) if self.restarted else (0, False)
        except GenreRayError as error:
            yield tell_error(error)
            return
        for _ in range(task["first_shard"], shards_in):
            yield SHARD_IS_IN
        if not complete:
            yield from self.worker.outcomes({**task, "first_shard": max(task["first_shard"], shards_in)})

    def _shards_in(self, task: dict[str, Any]) -> tuple[int, bool]:
        return Ledger(*self.ledger).progress(task["item"])


def make_tasks(remaining: Sequence[Remainder]) -> list[dict[str, Any]]:
    """What remains as rows for `ResumingWorker`."""
    return [asdict(left) for left in remaining]


def read_summaries(outcomes: Iterable[str]) -> Iterator[ShardSummary]:
    """What workers told, without the shards that were in.

    Raises:
        GenreRayError: the one that ended the work on an item.
    """
    return (read_outcome(outcome) for outcome in outcomes if outcome != SHARD_IS_IN)


def _summaries(
    ledger: Ledger, remaining: Sequence[Remainder], source: Source, step: Step, execution: Execution
) -> Iterator[ShardSummary]:
    tasks = make_tasks(remaining)
    gpus = _gpus_per_worker(step, execution)
    size = _pool_size(len(tasks), execution, gpus)
    cpus = execution.cpus_per_worker
    settings = {
        "ledger": ledger.arguments,
        "source": source,
        "step": step,
        "limits": Limits(execution.item_timeout_s, execution.item_memory_mib),
        "has_spare_core": cpus > 1 or gpus > 0 or size * cpus < ray.cluster_resources().get("CPU", 1),
    }
    with pool.outcomes(ResumingWorker, settings, tasks, size=size, cpus=cpus, gpus=gpus) as outcomes:
        yield from read_summaries(outcomes)


def _attempts_uri(output: str) -> str:
    return objects.join(output, "_run", "attempts")


def _was_restarted() -> bool:
    return bool(ray.get_runtime_context().was_current_actor_reconstructed)


def _gpus_per_worker(step: Step, execution: Execution) -> float:
    if execution.gpus_per_worker is not None:
        return execution.gpus_per_worker
    return 1.0 if step.gains_from_gpu and ray.cluster_resources().get("GPU", 0) >= 1 else 0.0


def _pool_size(items: int, execution: Execution, gpus: float) -> int:
    resources = ray.cluster_resources()
    by_cpu = resources.get("CPU", 1) / execution.cpus_per_worker
    by_gpu = resources.get("GPU", 0) / gpus if gpus else by_cpu
    return max(1, min(items, execution.workers or int(min(by_cpu, by_gpu))))
