"""Execute a run: workers compute and write shards, and the driver commits them.

Shards that were written before an error or a signal are committed too.
"""

import logging
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
from genre_ray.runs import capacity, resources
from genre_ray.runs.background import repeated
from genre_ray.runs.dataflow import Chain, describe_segments, outline, rows_written, segments, workers_of
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.output import scratch
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import RemainingWork
from genre_ray.runs.segment import Segment, Session
from genre_ray.runs.stages import Resources
from genre_ray.runs.watchdog import Limits
from genre_ray.storage import objects

logger = logging.getLogger(__name__)

COMMIT_EVERY_S, COMMIT_SHARDS = 5.0, 64
REPORT_EVERY_S, SHOW_EVERY_S = 60.0, 5.0
"""Seconds between two progress lines, in a log file and on a terminal."""
TICK_S = 0.25
"""Seconds between two checks whether to commit or to report."""


def execute(ledger: Ledger, remaining: Sequence[RemainingWork], chain: Chain, execution: Execution) -> int:
    """Do the remaining work, and return how many shards were committed.

    Raises:
        GenreRayError: a worker failed, or an item is incomplete in the end. Committed shards stay committed.
    """
    if not remaining:
        return 0
    session = Session(
        uuid.uuid4().hex,
        ledger.arguments,
        Limits(execution.item_timeout_s, execution.item_memory_mib),
        prefetches=len(remaining) < capacity.possible().workers(Resources(execution.cpus_per_worker)),
    )
    parts = segments(chain, session, execution)
    logger.info("%s", describe_segments(parts))
    committer = Committer(ledger)
    left = len(remaining)

    def wanted() -> Counter[Resources]:
        workers = Counter[Resources]()
        for segment in parts:
            workers[segment.resources] += workers_of(segment, execution, left)
        return workers

    with (
        resources.requested(wanted),
        resources.heartbeat(_Awaited(parts)),
        rows_written(parts, remaining, execution) as rows,
        # Innermost, so that a stopped job commits first: it has only a few seconds.
        committer.in_background(),
    ):
        for summary in summaries(rows):
            committer.add(summary)
            left -= summary.last
    require_complete(ledger, remaining)
    # Attempt markers are not needed any more.
    objects.delete_folder(objects.join(scratch(ledger.output), "attempts"))
    return committer.committed


def refuse_impossible(chain: Chain, execution: Execution) -> None:
    """Refuse a chain whose workers the cluster can never run.

    Raises:
        ConfigurationError: the cluster can never run one worker, or one worker of each segment at the same time.
    """
    parts = outline(chain, execution)
    for segment in parts:
        setting = "execution.gpus_per_worker" if segment.resources.gpus else "execution.cpus_per_worker"
        capacity.refuse_impossible(segment.resources, setting, name=f"a worker of `{segment.name}`")
    capacity.refuse_shortage([segment.resources for segment in parts], "execution.cpus_per_worker")


class _Awaited:
    """Describes the resources that the first segment without a running worker waits for; None if there is none."""

    def __init__(self, parts: Sequence[Segment]) -> None:
        self._waiting = list(parts)

    def __call__(self) -> str | None:
        while self._waiting:
            segment = self._waiting[0]
            if next(iter(objects.scan_files(segment.attempts_uri)), None) is None:
                return resources.describe(segment.resources, f"a worker of `{segment.name}`")
            del self._waiting[0]
        return None


class Committer:
    """Commits shards in batches, by number and by time, and the rest when its block ends.

    Attributes:
        committed: number of shards that this object committed.
        rows: number of rows of all shards that were added.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.committed = self.rows = 0
        self._ledger, self._pending = ledger, deque[ShardSummary]()
        self._started = self._committed_at = self._reported_at = time.monotonic()
        self._error: BaseException | None = None

    def add(self, summary: ShardSummary) -> None:
        """Add a written shard.

        Raises:
            GenreRayError: an earlier commit failed.
        """
        if self._error is not None:
            raise self._error
        self._pending.append(summary)
        self.rows += summary.rows_in

    def commit(self, *, all_pending: bool) -> None:
        """Commit pending shards if there are enough or they waited long enough, or all if `all_pending`."""
        waited_s = time.monotonic() - self._committed_at
        while self._pending and (all_pending or len(self._pending) >= COMMIT_SHARDS or waited_s >= COMMIT_EVERY_S):
            # Removed before the commit, so that a failed commit is not tried again at the end.
            shards = [self._pending.popleft() for _ in range(min(len(self._pending), COMMIT_SHARDS))]
            self.committed += self._ledger.commit(shards)
            self._committed_at, waited_s = time.monotonic(), 0.0

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Commit in a thread while the block runs, so that neither a slow shard nor a signal delays commits."""
        with repeated(self._tick, TICK_S, at_end=lambda: self._tick(at_end=True), name="commit"):
            yield
        if self._error is not None:
            raise self._error

    def _tick(self, *, at_end: bool = False) -> None:
        if self._error is not None:
            return
        try:
            self.commit(all_pending=at_end)
            self._report()
        except BaseException as error:
            logger.error("a commit failed; the run stops at the next shard: %s", error)
            self._error = error

    def _report(self) -> None:
        now, every_s = time.monotonic(), SHOW_EVERY_S if sys.stderr.isatty() else REPORT_EVERY_S
        if now - self._reported_at >= every_s:
            shards, rows_s = self.committed + len(self._pending), self.rows / (now - self._started)
            logger.info("%d rows in %d shards, %.0f rows/s", self.rows, shards, rows_s)
            self._reported_at = now


def require_complete(ledger: Ledger, remaining: Sequence[RemainingWork]) -> None:
    """Check that all items are complete.

    This is needed because Ray does not report an error of a retried task if the first attempt got further.

    Raises:
        GenreRayError: an item is not complete.
    """
    short = [left.item for left in remaining if ledger.shards_done(left.item) is not None]
    if short:
        # Another driver of the same run may have committed them.
        now = Ledger(*ledger.arguments)
        short = [item for item in short if now.shards_done(item) is not None]
    if short:
        raise GenreRayError(
            f"{ledger.output}: {len(short)} of {len(remaining)} work items are not complete, the first is {short[0]}; "
            "run again with --resume"
        )
