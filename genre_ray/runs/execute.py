"""Carries a run out: segments compute and write shards, and the driver commits the shards as they come.

What was written before an error or a signal is committed as well.
"""

import logging
import sys
import threading
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from genre_ray.config import Execution
from genre_ray.errors import GenreRayError
from genre_ray.runs import resources
from genre_ray.runs.dataflow import Chain, describe_segments, outline, rows_written, segments, workers_of
from genre_ray.runs.ledger import Ledger, ShardSummary
from genre_ray.runs.pieces import summaries
from genre_ray.runs.plan import RemainingWork
from genre_ray.runs.segment import Segment, Session
from genre_ray.runs.stages import Resources
from genre_ray.runs.watchdog import Limits
from genre_ray.storage import objects

logger = logging.getLogger(__name__)

COMMIT_EVERY_S, COMMIT_SHARDS = 5.0, 64
REPORT_EVERY_S, SHOW_EVERY_S = 60.0, 5.0
"""Between two lines on the progress, in a log and on a terminal."""
TICK_S = 0.25
"""Between two looks at what is due."""


def execute(ledger: Ledger, remaining: Sequence[RemainingWork], chain: Chain, execution: Execution) -> int:
    """Do what remains; return how many shards this call committed.

    Raises:
        GenreRayError: a worker's, or that items are not complete although nothing more comes. What was committed
            before it stays.
    """
    if not remaining:
        return 0
    session = Session(
        uuid.uuid4().hex,
        ledger.arguments,
        Limits(execution.item_timeout_s, execution.item_memory_mib),
        prefetches=len(remaining) < resources.possible().workers(Resources(execution.cpus_per_worker)),
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
        # Innermost: a job that is stopped has a few seconds, so it commits first.
        committer.in_background(),
    ):
        for summary in summaries(rows):
            committer.add(summary)
            left -= summary.last
    require_complete(ledger, remaining)
    # Nobody asks for attempt markers any more.
    objects.delete_folder(objects.join(ledger.output, "_run", "attempts"))
    return committer.committed


def refuse_impossible(chain: Chain, execution: Execution) -> None:
    """Refuse a chain whose workers the cluster can never run.

    Raises:
        ConfigurationError: what one worker reserves, or one of each segment together, is more than there can be.
    """
    parts = outline(chain, execution)
    for segment in parts:
        setting = "execution.gpus_per_worker" if segment.resources.gpus else "execution.cpus_per_worker"
        resources.refuse_impossible(segment.resources, setting, name=f"a worker of `{segment.name}`")
    resources.refuse_shortage([segment.resources for segment in parts], "execution.cpus_per_worker")


class _Awaited:
    """Describes what the first segment that no worker has begun reserves; None once all have begun."""

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
    """Commits shards by number and by time, and all that are left when its block ends, however it ends.

    Attributes:
        committed: shards that were not committed before.
    """

    def __init__(self, ledger: Ledger) -> None:
        self.committed = self.rows = 0
        self._ledger, self._pending = ledger, deque[ShardSummary]()
        self._started = self._committed_at = self._reported_at = time.monotonic()
        self._error: BaseException | None = None

    def add(self, summary: ShardSummary) -> None:
        """Take a shard that was written.

        Raises:
            GenreRayError: an earlier commit failed.
        """
        if self._error is not None:
            raise self._error
        self._pending.append(summary)
        self.rows += summary.rows_in

    def commit(self, *, all_pending: bool) -> None:
        """Commit what is pending, if it is enough or has waited long enough, or if `all_pending`."""
        waited_s = time.monotonic() - self._committed_at
        while self._pending and (all_pending or len(self._pending) >= COMMIT_SHARDS or waited_s >= COMMIT_EVERY_S):
            # Taken out first: a commit that fails is not tried again on the way out.
            shards = [self._pending.popleft() for _ in range(min(len(self._pending), COMMIT_SHARDS))]
            self.committed += self._ledger.commit(shards)
            self._committed_at, waited_s = time.monotonic(), 0.0

    @contextmanager
    def in_background(self) -> Iterator[None]:
        """Commit in a thread, so that neither a long shard nor a signal comes between."""
        ended = threading.Event()

        def work() -> None:
            try:
                while not ended.wait(TICK_S):
                    self.commit(all_pending=False)
                    self._report()
                self.commit(all_pending=True)
            except BaseException as error:
                logger.error("a commit failed, so the run ends with the next shard: %s", error)
                self._error = error

        thread = threading.Thread(target=work, name="commit", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def _report(self) -> None:
        now, every_s = time.monotonic(), SHOW_EVERY_S if sys.stderr.isatty() else REPORT_EVERY_S
        if now - self._reported_at >= every_s:
            shards, rows_s = self.committed + len(self._pending), self.rows / (now - self._started)
            logger.info("%d rows in %d shards, %.0f rows/s", self.rows, shards, rows_s)
            self._reported_at = now


def require_complete(ledger: Ledger, remaining: Sequence[RemainingWork]) -> None:
    """Make sure that nothing remains: Ray reports no error of a retried task that comes before the point of its retry.

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
            "--resume does what is missing"
        )
