"""Run a chain of stages as a Ray Data dataset.

Consecutive stages with equal resources form a segment, which runs in one process and moves no rows between processes.
Between segments, pieces of shards go through Ray's object store, with backpressure.

A single segment, or one that reserves GPUs, runs as actors. Actors keep their models loaded, and have a queue of items,
so they do not wait for Ray. Other segments run as tasks, because Ray can share the CPUs among them, whereas actors
would reserve theirs until the end.
"""

import logging
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from genre_ray.config import Execution
from genre_ray.runs import capacity
from genre_ray.runs.plan import RemainingWork
from genre_ray.runs.segment import Segment, Session
from genre_ray.runs.stages import Resources, Source, Stage
from genre_ray.runs.watchdog import Limits

ONE_ROW = 1
"""Block size in bytes. With such a small size Ray makes one block per row, and each row is a piece."""


ITEMS_TO_QUEUE = 4
"""With more items per worker than this, an actor receives its next item while it processes the current one. This saves
about 0.1 s per item. With few items, an item could wait behind a long one for longer than that."""

WORKERS_PER_ITEM = 4
"""How many workers the rows of one item keep busy. Reading takes at least a quarter of the time of computing."""


@dataclass(frozen=True)
class Chain:
    """A source and the stages that its rows go through before they are written."""

    source: Source
    stages: tuple[Stage, ...]

    @property
    def schema(self) -> pa.Schema:
        """The schema of the rows that are written."""
        return self.stages[-1].schema


def segments(chain: Chain, session: Session, execution: Execution) -> list[Segment]:
    """Split a chain into segments.

    Args:
        chain: the source and the stages.
        session: the session of the workers.
        execution: contains the resources of stages that do not state their own.
    """
    default = Resources(execution.cpus_per_worker)
    groups: list[tuple[Resources, list[Stage]]] = [(default, [])]
    for stage in chain.stages:
        needs = stage.resources or default
        if needs != groups[-1][0]:
            groups.append((needs, []))
        groups[-1][1].append(stage)
    found: list[Segment] = []
    schema = chain.source.schema
    for index, (needs, stages) in enumerate(groups):
        schema = stages[-1].schema if stages else schema
        source = chain.source if index == 0 else None
        # The last segment writes the parts, because parts are small compared with the rows in memory.
        writes = index == len(groups) - 1
        found.append(Segment(session, index, source, tuple(stages), schema, writes, needs))
    return found


def outline(chain: Chain, execution: Execution) -> list[Segment]:
    """Return the segments of a chain for inspection, without a session."""
    return segments(chain, Session("", ("", "", chain.schema, ""), Limits()), execution)


def describe_segments(found: Sequence[Segment]) -> str:
    """Describe the segments and the resources of their workers in one line."""
    return " | ".join(f"{segment.name} ({segment.resources})" for segment in found)


def workers_of(segment: Segment, execution: Execution, items: int) -> int:
    """Return the maximum number of workers of a segment."""
    most = items if segment.source or segment.resources.gpus else WORKERS_PER_ITEM * items
    return capacity.most_workers(segment.resources, execution.workers, most)


@contextmanager
def rows_written(
    parts: Sequence[Segment], remaining: Sequence[RemainingWork], execution: Execution
) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the segments over the remaining work; yield an iterator over rows with the schema `pieces.WRITTEN`.

    All workers end when the block ends.
    """
    # Imported here, because the import takes seconds and a job without remaining work does not need it.
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)  # importing ray.data sets another level
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = ONE_ROW
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_no_progress_timeout_s = -1  # segments have their own watchdog, and nodes may take long to start
    with ray.data.DataContext.current(context):
        work = [left._asdict() for left in remaining]
        data = ray.data.from_items(work, override_num_blocks=len(work))
        for segment in parts:
            workers = workers_of(segment, execution, len(work))
            as_actors = len(parts) == 1 or segment.resources.gpus > 0
            queue = 2 if segment.source is None or len(work) > ITEMS_TO_QUEUE * workers else 1
            data = _added(data, segment, workers, queue if as_actors else 0)
        with closing(_rows(data)) as rows:
            yield rows


def _rows(data: Any) -> Generator[dict[str, Any]]:
    batches = data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for batch in batches:
        yield from batch.to_pylist()


def _added(data: Any, segment: Segment, workers: int, queue: int) -> Any:
    """Add a segment to a dataset: as actors with a queue of `queue` inputs, or as tasks if `queue` is 0."""
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    needs: dict[str, Any] = {"num_cpus": segment.resources.cpus}
    if segment.resources.gpus:
        needs["num_gpus"] = segment.resources.gpus
    if segment.resources.memory_mib:
        needs["memory"] = segment.resources.memory_mib * 2**20
    if queue:
        # The pool has its full size from the start, because it grows too slowly. Actors that cannot start do no harm.
        compute: Any = ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=queue)
        worker = type(segment.name, (_SegmentActor,), {})
        needs["fn_constructor_args"] = [segment]
    else:
        worker, compute = _named(segment), TaskPoolStrategy(size=workers)
    return data.map_batches(worker, batch_size=1, batch_format="pyarrow", compute=compute, **needs)


def _named(segment: Segment) -> Any:
    def run(batch: pa.Table) -> Iterator[pa.Table]:
        return segment(batch)

    # Ray shows this name in its dashboard, logs and process titles.
    run.__name__ = run.__qualname__ = segment.name
    return run


class _SegmentActor:
    """An actor that runs a segment and keeps its stages open between calls."""

    def __init__(self, segment: Segment) -> None:
        self._segment = segment

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return self._segment(batch)
